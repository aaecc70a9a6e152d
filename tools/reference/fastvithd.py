"""Constants of the vision tower, without torch: make_checkpoint.py and count.py need no more than this."""

VT = "model.vision_tower.vision_tower.model."          # name prefix of its tensors, apple / llava_qwen2 layout

# FastViTHD as released; a "vision_config" object in config.json may override it (tiny checkpoints do).
FASTVITHD = dict(layers=[2, 12, 24, 4, 2], embed_dims=[96, 192, 384, 768, 1536], mlp_ratios=[4] * 5,
                 token_mixers=["repmixer"] * 3 + ["attention"] * 2,
                 pos_embs_shapes=[None, None, None, [7, 7], [7, 7]],
                 down_patch_size=7, down_stride=2, repmixer_kernel_size=3, cls_ratio=2.0)
