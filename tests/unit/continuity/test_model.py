"""What every model shares: the copy with changes."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity import modelled, readiness, simulate  # noqa: F401  (with them, most models are defined)
from qnwis.continuity.lease_messages import LastGrant
from qnwis.continuity.leases import GrantorRecord
from qnwis.continuity.model import Model

fields = st.fixed_dictionaries(
    {},
    optional={
        "disk_id": st.text(max_size=3),
        "epoch": st.integers(0, 9),
        "granted": st.builds(LastGrant, epoch=st.just(1), holder=st.just("b"), duration_s=st.just(3.0)),
    },
)


@given(fields, fields)
def test_a_copy_is_what_validation_makes_of_the_changed_fields(
    given_fields: dict[str, object], changes: dict[str, object]
) -> None:
    record = GrantorRecord.model_validate({"node_id": "a", **given_fields})
    copied, expected = record.model_copy(update=changes), {"node_id": "a", **given_fields, **changes}
    assert copied == GrantorRecord.model_validate(expected)
    assert copied.model_fields_set == expected.keys()
    assert copied.model_dump_json(exclude_unset=True) == GrantorRecord.model_validate(
        expected
    ).model_dump_json(exclude_unset=True)
    assert record == GrantorRecord.model_validate({"node_id": "a", **given_fields})


def test_a_deep_copy_shares_nothing() -> None:
    record = GrantorRecord(node_id="a", granted=LastGrant(epoch=1, holder="b", duration_s=3.0))
    assert record.model_copy().granted is record.granted
    copied = record.model_copy(deep=True)
    assert copied == record
    assert copied.granted is not record.granted


def every_model(of: type[Model] = Model) -> Iterator[type[Model]]:
    for model in of.__subclasses__():
        yield model
        yield from every_model(model)


def test_no_model_has_fields_that_a_copy_leaves_out() -> None:
    for model in every_model():
        assert not model.__private_attributes__, model
        assert model.model_config["extra"] in ("forbid", "ignore"), model
        assert not model.__pydantic_post_init__, model
