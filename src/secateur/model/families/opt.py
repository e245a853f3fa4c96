"""OPT: learned positions, biases everywhere, a plain two-layer MLP."""

from secateur.model.families import QKV, Family, Part

FAMILY = Family(
    types=("opt",),
    groups=(QKV,),
    parts=(
        Part("", QKV.members, "self_attn.out_proj", ("self_attn_layer_norm",)),
        Part("channels", ("fc1",), "fc2", ("final_layer_norm",)),
    ),
)
