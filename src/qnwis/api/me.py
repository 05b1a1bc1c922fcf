"""Who is signed in, as the API sees it."""

from __future__ import annotations

from fastapi import APIRouter, Response

from qnwis.continuity.identity import Permission, may
from qnwis.continuity.model import Model

from .asking import Asking, answer, reads
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)


class Me(Model):
    request_id: str
    name: str
    roles: tuple[str, ...]
    by: str
    """What showed it: `jwt <issuer>` or `service token <id>`."""
    permissions: tuple[Permission, ...]


@router.get("/me", response_model=Me)
async def me(asking: Asking = reads()) -> Response:
    """Whose credentials these are, and what the API lets them ask for. Whoever is signed in may ask."""
    who, rbac = asking.who, asking.parts.access.load_rbac()
    allowed = tuple(one for one in Permission if may(who, one, rbac))
    view = Me(request_id=asking.request_id, name=who.name, roles=who.roles, by=who.by, permissions=allowed)
    return answer(view)
