"""Rotary positions of a config.json, as transformers 5 writes them (rope_parameters) and as older versions did."""

from __future__ import annotations

from typing import Any

from sanbu.interop.families.sheet import Fields, Sheet

KINDS = ("default", "linear", "llama3")
THETA, FRACTION = ("rope_theta", 10000.0), "partial_rotary_factor"


def rope_in(sheet: Sheet, theta: tuple[str, float] = THETA, fraction: tuple[str, float] | None = None) -> Fields:
    """rope_base, scaling and, where `fraction` is given, rotated: the fraction of a head.

    theta, fraction: their older names and their defaults. As in transformers, rope_scaling counts before
    rope_parameters, and the fields inside count before those beside it.
    """
    inside = sheet.part("rope_scaling" if sheet.get("rope_scaling", {}) else "rope_parameters")
    sheet.ignore(("rope_scaling", "rope_parameters"))
    base = sheet.get(*theta)
    if theta != THETA:
        sheet.only("rope_theta", base, None)
    found = one_rope(inside, base, sheet.get("max_position_embeddings", 0))
    if fraction is None:
        sheet.only(FRACTION, 1.0, None)
        inside.only(FRACTION, 1.0, None)
    else:
        found["rotated"] = inside.get(FRACTION, sheet.get(*fraction))
        sheet.only(FRACTION, found["rotated"], None)
    inside.close()
    return found


def one_rope(inside: Sheet, base: float, context: int) -> Fields:
    """rope_base and scaling of one object."""
    name = "rope_type" if inside.fields.get("rope_type") is not None else "type"
    kind = inside.get(name, "default")
    inside.ignore(("type", "rope_type"))
    if kind not in KINDS:
        inside.refuse(name, ", ".join(map(repr, KINDS)))
    return {"rope_base": inside.get("rope_theta", base), "scaling": scaling_in(inside, kind, context)}


def scaling_in(inside: Sheet, kind: str, context: int) -> Fields | None:
    """Our scaling."""
    if kind == "default":
        return None
    found = {"kind": kind, "factor": number(inside, "factor")}
    if kind == "llama3":
        found |= {"low": number(inside, "low_freq_factor"), "high": number(inside, "high_freq_factor")}
        found["original"] = inside.get("original_max_position_embeddings", context)
    return found


def number(inside: Sheet, name: str) -> float:
    """A number that a scaling cannot do without."""
    if inside.get(name, None) is None:
        inside.refuse(name, "a number")
    return inside.get(name, 1.0)


def rope_out(config: Any) -> Fields:
    """rope_theta and rope_scaling: the spelling that every version of transformers reads."""
    return {"rope_theta": config.rope_base, "rope_scaling": scaling_out(config.scaling)}


def scaling_out(scaling: Any) -> Fields | None:
    """Their scaling."""
    if scaling is None:
        return None
    found = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        found |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
        found["original_max_position_embeddings"] = scaling.original
    return found
