"""The power hook (STONITH): asks a power switch to switch a node off or on, and says what it answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import FencingHook
from qnwis.transport import Transport

from .errors import Refused, Unreachable
from .third_party import Kind, provider_of


class HookAnswer(BaseModel):
    """What a power switch reports; a switch may say more than this."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    changed: bool
    """False when the node already was in the wanted state."""
    detail: str


class Hook(Protocol):
    """Switches a node's power. Raises Unreachable or Refused."""

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        """Switch a node; the answer means that it is done. Done already, it is not done again."""
        ...


@dataclass(frozen=True)
class PowerHook:
    """Calls the hook that a topology names."""

    transport: Transport

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        """Switch a node; the answer means that it is done.

        Raises Unreachable when it may or may not have been done (no answer, an answer that makes no sense,
        or a failure of the switch itself), Refused when the switch says no to the request.
        """
        assert hook.url is not None, "whoever has a provider is asked by that"
        url = hook.asked(node_id, state)
        try:
            async with (
                asyncio.timeout(hook.timeout_s),
                self.transport.client(timeout_s=hook.timeout_s) as client,
            ):
                response = await client.post(url, json={"effect_id": effect_id})
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            reason = str(error) or f"no answer within {hook.timeout_s:g} s"
            raise Unreachable(f"fencing hook POST {url}: {reason}") from error
        said = response.text.strip()[:300] or "(empty body)"
        if response.is_success:
            try:
                return HookAnswer.model_validate_json(response.content)
            except ValidationError as error:
                raise Unreachable(
                    f"fencing hook POST {url}: status {response.status_code} without the expected "
                    f'{{"changed": true or false, "detail": text}}: {said}'
                ) from error
        if response.is_client_error:
            raise Refused(
                Refusal(
                    rule="fencing_hook_refused",
                    message=f"The fencing hook POST {url} answers {response.status_code}: {said}",
                    values={"url": url, "status": response.status_code, "node_id": node_id, "state": state},
                    remedy="Check fencing.url in the cluster's topology, and that the switch knows the node.",
                )
            )
        raise Unreachable(f"fencing hook POST {url}: status {response.status_code}: {said}")


@dataclass(frozen=True)
class HookByMaker:
    """The hook that a topology names: by its URL, or by somebody else's provider."""

    power: Hook

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        """As `PowerHook`. Of a provider, no answer in time is Unreachable, too, and so is whatever else it
        raises: nobody knows what it has done by then, and others wait for what comes of it."""
        if hook.provider is None:
            return await self.power.switch(hook, node_id, state, effect_id)
        provider = cast(Hook, provider_of(Kind.FENCING, hook.provider))
        asked = hook.asked(node_id, state)
        try:
            async with asyncio.timeout(hook.timeout_s):
                return await provider.switch(hook, node_id, state, effect_id)
        except (Refused, Unreachable):
            raise
        except TimeoutError as error:
            raise Unreachable(f"fencing hook {asked}: no answer within {hook.timeout_s:g} s") from error
        except Exception as error:
            raise Unreachable(f"fencing hook {asked}: {type(error).__name__}: {error}") from error
