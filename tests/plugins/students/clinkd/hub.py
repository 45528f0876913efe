"""Tiny random models of every family, in the Hub's layout: config, weights, tokenizer, processor, template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from kdkit.plugins.students.clinkd.byte_tokenizer import byte_tokenizer_files
from tests.plugins.students.clinkd.tiny import WORDS, enlarge

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<IMAGE>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'][0]['text'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ first if loop.first else '' }}{% for c in m['content'] %}{% if c['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ c['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'] | upper }}: {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SMOL = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{{ '' if m['content'][0]['type'] == 'image' else ' ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MEAN = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
SIDE = 28
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
CLIP: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 14,
    "projection_dim": 16,
}
SIGLIP = {"model_type": "siglip_vision_model", **CLIP, "vision_use_head": False}
GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
_CROP = {"crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}}
_SQUARE = {"size": {"height": SIDE, "width": SIDE}}

SPECIAL: dict[str, tuple[str, ...]] = {
    "qwen3_vl": (),
    "gemma3": (
        *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        *("<start_of_image>", "<image_soft_token>", "<end_of_image>"),
    ),
    "llava": ("<s>", "</s>", "<unk>", "<image>", "<pad>"),
    "llava_next": ("<s>", "</s>", "<unk>", "<image>", "<pad>"),
    "llava_onevision": ("<image>", "<video>"),
    "smolvlm": (
        *("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<video>"),
        *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)),
    ),
    "internvl": ("<img>", "</img>", "<IMG_CONTEXT>", "<video>", "<ref>", "</ref>", "<box>", "</box>"),
    "mllama": (
        *("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        *("<|python_tag|>", "<|finetune_right_pad_id|>", "<|image|>"),
    ),
}
SPECIAL["idefics3"] = SPECIAL["smolvlm"]
TOKENIZERS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "extra_special_tokens": {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    },
    "llava": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "llava_next": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "llava_onevision": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "smolvlm": {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"},
    "internvl": {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "extra_special_tokens": {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    },
    "mllama": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"},
}
TOKENIZERS["idefics3"] = TOKENIZERS["smolvlm"]
TEMPLATES = {
    "gemma3": GEMMA,
    "llava": VICUNA,
    "llava_next": VICUNA,
    "llava_onevision": CHATML.replace("<IMAGE>", "<image>"),
    "smolvlm": SMOL,
    "idefics3": SMOL,
    "internvl": CHATML.replace("<IMAGE>", "<IMG_CONTEXT>"),
    "mllama": LLAMA,
}
BLANKS = dict.fromkeys(("llava", "llava_next", "smolvlm", "idefics3"), " ")
"""What a template writes between the prompt and an answer, as those of these models on the Hub do."""
_IDEFICS = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": SIDE}, "do_image_splitting": True, **MEAN}
IMAGES: dict[str, dict[str, Any]] = {
    "gemma3": {"image_processor_type": "Gemma3ImageProcessor", **_SQUARE},
    "llava": {"image_processor_type": "CLIPImageProcessor", **_CROP, **MEAN},
    "llava_next": {"image_processor_type": "LlavaNextImageProcessor", **_CROP, "image_grid_pinpoints": GRIDS, **MEAN},
    "llava_onevision": {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        **_SQUARE,
        "image_grid_pinpoints": GRIDS,
        **MEAN,
    },
    "smolvlm": {"image_processor_type": "SmolVLMImageProcessor", **_IDEFICS},
    "idefics3": {"image_processor_type": "Idefics3ImageProcessor", **_IDEFICS},
    "internvl": {
        "image_processor_type": "GotOcr2ImageProcessor",
        **_SQUARE,
        "max_patches": 4,
        "crop_to_patches": True,
        **MEAN,
    },
    "mllama": {"image_processor_type": "MllamaImageProcessor", **_SQUARE, "max_image_tiles": 4, **MEAN},
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "gemma3": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
    "llava": {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    },
    "llava_next": {
        "processor_class": "LlavaNextProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    },
    "llava_onevision": {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 4,
        "vision_feature_select_strategy": "full",
    },
    "smolvlm": {"processor_class": "SmolVLMProcessor", "image_seq_len": 1},
    "idefics3": {"processor_class": "Idefics3Processor", "image_seq_len": 1},
    "internvl": {"processor_class": "InternVLProcessor", "image_seq_length": 1},
    "mllama": {"processor_class": "MllamaProcessor"},
}
VIDEOS: dict[str, dict[str, Any]] = {
    "llava_onevision": {"video_processor_type": "LlavaOnevisionVideoProcessor", **_SQUARE},
    "smolvlm": {
        "video_processor_type": "SmolVLMVideoProcessor",
        "size": {"longest_edge": SIDE},
        "num_frames": 2,
        "fps": 1,
    }
    | {"max_image_size": {"longest_edge": SIDE}},
    "internvl": {"video_processor_type": "InternVLVideoProcessor", **_SQUARE},
}


def config_of(family: str, ids: dict[str, int]) -> dict[str, Any]:
    """``config.json`` of a tiny model; ``ids`` are the tokenizer's."""
    size = -(-len(ids) // 8) * 8
    text: dict[str, Any] = {**TEXT, "vocab_size": size, "bos_token_id": None}
    llama = {"model_type": "llama", **text, "pad_token_id": None}
    if family == "qwen3_vl":
        rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 1e4}
        vision: dict[str, Any] = {
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
        }
        vision |= {"patch_size": 14, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        named = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
        named |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
        tokens = {name: ids[token] for name, token in named.items()}
        return {"text_config": {**text, "rope_parameters": rope}, "vision_config": vision, **tokens}
    if family == "gemma3":
        gemma = {**text, "query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 2}
        gemma |= {"layer_types": ["sliding_attention", "full_attention"], "pad_token_id": ids["<pad>"]}
        tokens = {"image_token_id": ids["<image_soft_token>"], "boi_token_index": ids["<start_of_image>"]}
        tokens |= {"eoi_token_index": ids["<end_of_image>"], "mm_tokens_per_image": 4}
        return {"text_config": {"model_type": "gemma3_text", **gemma}, "vision_config": SIGLIP, **tokens}
    if family in ("llava", "llava_next"):
        extra = {"image_grid_pinpoints": GRIDS} if family == "llava_next" else {}
        clip = {"model_type": "clip_vision_model", **CLIP}
        return {"text_config": llama, "vision_config": clip, "image_token_index": ids["<image>"], **extra}
    if family == "llava_onevision":
        qwen = {"model_type": "qwen2", **text}
        tokens = {"image_token_index": ids["<image>"], "video_token_index": ids["<video>"]}
        return {"text_config": qwen, "vision_config": SIGLIP, "image_grid_pinpoints": GRIDS, **tokens}
    if family in ("smolvlm", "idefics3"):
        vision = {name: CLIP[name] for name in CLIP if name != "projection_dim"}
        return {"text_config": llama, "vision_config": vision, "image_token_id": ids["<image>"], "scale_factor": 2}
    if family == "internvl":
        qwen = {"model_type": "qwen2", **text}
        vision = {name: CLIP[name] for name in CLIP if name != "projection_dim"}
        vision |= {"image_size": [SIDE, SIDE], "patch_size": [14, 14]}
        return {"text_config": qwen, "vision_config": vision, "image_token_id": ids["<IMG_CONTEXT>"]}
    mllama = {**text, "cross_attention_layers": [1], "vocab_size": ids["<|image|>"]}
    mllama |= {"bos_token_id": ids["<|begin_of_text|>"]}
    mllama |= {"pad_token_id": ids["<|finetune_right_pad_id|>"], "eos_token_id": ids["<|eot_id|>"]}
    del mllama["head_dim"]
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "image_size": SIDE, "patch_size": 14, "max_num_tiles": 4, "vision_output_dim": 32}
    vision |= {"intermediate_layers_indices": [0]}
    return {"text_config": mllama, "vision_config": vision, "image_token_index": ids["<|image|>"]}


def write_model(family: str, folder: Path) -> Path:
    """A folder as of ``hf download``, with weights far enough from their first values that positions matter."""
    from tokenizers import Tokenizer

    folder.mkdir(parents=True)
    files = byte_tokenizer_files(WORDS)
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.add_special_tokens(list(SPECIAL[family]))
    settings = json.loads(files["tokenizer_config.json"]) | TOKENIZERS.get(family, {})
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for name, found in (("preprocessor", IMAGES), ("processor", PROCESSORS), ("video_preprocessor", VIDEOS)):
        if family in found:
            content = found[family] | ({"processor_class": PROCESSORS[family]["processor_class"]})
            (folder / f"{name}_config.json").write_text(json.dumps(content))
    if family == "qwen3_vl":
        content = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, **MEAN}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATES[family], encoding="utf-8")
    kind = transformers.AutoConfig.for_model(family, **config_of(family, tokenizer.get_vocab()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.AutoModelForImageTextToText.from_config(kind)
        enlarge(network)
        for name, parameter in network.named_parameters():
            if name.endswith("gate"):  # Mllama's start closed: no image would count
                parameter.data.fill_(1.0)
            if name.endswith("mm_input_projection_weight"):  # Gemma 3's starts at zero: neither
                parameter.data.normal_()
    network.save_pretrained(folder)
    return folder
