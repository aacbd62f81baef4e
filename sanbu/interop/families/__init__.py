"""Model families of Hugging Face, to and from ours: model_type -> Family."""

from sanbu.interop.families.family import Family
from sanbu.interop.families.gemma import GEMMA2_FAMILY, GEMMA3_FAMILY
from sanbu.interop.families.gpt import GPT1_FAMILY, GPT2_FAMILY, OPT_FAMILY
from sanbu.interop.families.llama import LLAMA_FAMILY, MISTRAL_FAMILY, PHI3_FAMILY, QWEN2_FAMILY, QWEN3_FAMILY
from sanbu.interop.families.neox import NEOX_FAMILY

__all__ = ["FAMILIES", "Family"]
FAMILIES = {
    family.model_type: family
    for family in (
        GPT1_FAMILY,
        GPT2_FAMILY,
        LLAMA_FAMILY,
        MISTRAL_FAMILY,
        QWEN2_FAMILY,
        QWEN3_FAMILY,
        PHI3_FAMILY,
        GEMMA2_FAMILY,
        GEMMA3_FAMILY,
        NEOX_FAMILY,
        OPT_FAMILY,
    )
}
