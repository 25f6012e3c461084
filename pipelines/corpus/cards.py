"""What lies beside the shards for readers that are not ours: the dataset card, Megatron-Energon's metadata, croissant.json.

All of it follows from dataset.json's content; none of it is read back by us.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from ...schemas.clock import TICK_SAMPLES, clock_text
from ...schemas.record import ARRAY_MEMBERS, LABEL_MEMBERS
from ..storage.folders import Folder
from ..storage.tables import read_table

CARD = "README.md"
ENERGON_VERSION = "7.4.1"  # the version this metadata was tried with
RIGHTS = ("license", "consent", "source", "language", "speaker")
MAX_TOLD = 20  # values of each that a person is shown; the index has them all


def files(out: Folder, dataset: Mapping[str, Any]) -> dict[str, bytes]:
    """Name → bytes of README.md, `.nv-meta` and croissant.json; `out` is asked for the rights that its index states."""
    rights = _rights(out, dataset)
    croissant = json.dumps(_croissant(dataset, rights), indent=1, ensure_ascii=False) + "\n"
    texts = {CARD: _card(dataset, rights), "croissant.json": croissant}
    texts |= {f".nv-meta/{name}": text for name, text in _energon(dataset).items()}
    return {name: text.encode() for name, text in texts.items()}


def _rights(out: Folder, dataset: Mapping[str, Any]) -> dict[str, list[str]]:
    """The distinct licences, consents, sources, languages and speakers of the windows, sorted; "" is left out."""
    found: dict[str, set[str]] = {name: set() for name in RIGHTS}
    for shard in dataset["shards"]:
        table = read_table(out, f"index/{shard['name']}.parquet", list(found))
        for name in found:
            found[name].update(table[name].unique().to_pylist())
    return {name: sorted(values - {""}) for name, values in found.items()}


def _by_split(dataset: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    splits: dict[str, list[Mapping[str, Any]]] = {}
    for shard in dataset["shards"]:
        splits.setdefault(shard["split"], []).append(shard)
    return dict(sorted(splits.items()))


def _card(dataset: Mapping[str, Any], rights: Mapping[str, list[str]]) -> str:
    """The card: a YAML header that names the splits, as the Hugging Face hub and `datasets` read it, and a page for people."""
    header: dict[str, Any] = {
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": [f"shards/{s['name']}.tar" for s in shards]} for split, shards in _by_split(dataset).items()
                ],
            }
        ],
        "tags": ["microturn", "webdataset", "full-duplex", "speech"],
    }
    if rights["language"]:
        header["language"] = rights["language"]
    if rights["license"]:
        header["license"] = "other" if len(rights["license"]) > 1 else rights["license"][0].lower()
    totals, digests = dataset["totals"], dataset["digests"]
    rows = "\n".join(
        f"| {split} | {len(shards)} | {sum(s['num_windows'] for s in shards)} | "
        f"{clock_text(sum(s['num_ticks'] for s in shards) * TICK_SAMPLES)} | {sum(s['num_tokens'] for s in shards)} |"
        for split, shards in _by_split(dataset).items()
    )
    members = "\n".join(
        f"| `{name}.npy` | {member.dtype} | {', '.join(map(str, member.axes))} |" for name, member in sorted(ARRAY_MEMBERS.items())
    )
    if dataset["spec"]["pictures"]["codec"] == "png":
        members = members.replace("`patches.npy`", "`patches.png`")
    template = resources.files(__package__).joinpath("card.md").read_text(encoding="utf-8")
    return (
        "---\n"
        + yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
        + "---\n"
        + template.format(
            hours=clock_text(totals["num_ticks"] * TICK_SAMPLES),
            windows=totals["num_windows"],
            sessions=totals["num_sessions"],
            rejected=totals["rejected_sessions"],
            splits=rows,
            members=members,
            labels=", ".join(f"`{name}.json`" for name in LABEL_MEMBERS),
            tokenizer=dataset["layout"]["tokenizer"],
            content=digests["content"],
            layout=digests["layout"],
            version=dataset["toolchain"]["microturn"],
            rights="\n".join(f"- {name}: {_told(values)}" for name, values in rights.items()),
        )
    )


def _told(values: Sequence[str]) -> str:
    """The values as a person reads them, on one line."""
    shown = "; ".join(" ".join(value.split()) for value in values[:MAX_TOLD]) or "not stated by the input"
    return shown + (f"; and {len(values) - MAX_TOLD} more" if len(values) > MAX_TOLD else "")


def _energon(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Files of `.nv-meta`. Energon's readers refuse keys they do not know, so these hold nothing of ours."""
    names = {split: [f"shards/{s['name']}.tar" for s in shards] for split, shards in _by_split(dataset).items()}
    counts = {f"shards/{s['name']}.tar": s["num_windows"] for s in dataset["shards"]}
    parts = {split: names.get(split, []) for split in sorted({*names, "train", "val", "test"})}
    return {
        ".info.json": json.dumps({"energon_version": ENERGON_VERSION, "shard_counts": counts}, indent=1) + "\n",
        "split.yaml": yaml.safe_dump({"split_parts": parts, "exclude": []}, sort_keys=False),
        "dataset.yaml": yaml.safe_dump({"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}, sort_keys=False),
    }


def _croissant(dataset: Mapping[str, Any], rights: Mapping[str, list[str]]) -> dict[str, Any]:
    """Metadata in the Croissant 1.0 vocabulary: the shards as files with their sha256, the index as a record set."""
    shards = [
        {
            "@type": "cr:FileObject",
            "@id": f"shards/{shard['name']}.tar",
            "name": f"{shard['name']}.tar",
            "contentUrl": f"shards/{shard['name']}.tar",
            "contentSize": f"{shard['size_bytes']} B",
            "encodingFormat": "application/x-tar",
            "sha256": shard["sha256"],
        }
        for shard in dataset["shards"]
    ]
    index = {
        "@type": "cr:FileSet",
        "@id": "index",
        "name": "index",
        "description": "a row per window: key, split, shard, byte range, counts, digest, rights",
        "encodingFormat": "application/x-parquet",
        "includes": "index/*.parquet",
    }
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"windows/{name}",
            "name": name,
            "dataType": kind,
            "source": {"fileSet": {"@id": "index"}, "extract": {"column": name}},
        }
        for name, kind in (("key", "sc:Text"), ("session", "sc:Text"), ("view", "sc:Text"), ("split", "sc:Text"), ("shard", "sc:Text"),
                           ("offset", "sc:Integer"), ("size", "sc:Integer"), ("num_ticks", "sc:Integer"), ("digest", "sc:Text"),
                           *((name, "sc:Text") for name in RIGHTS))
    ]  # fmt: skip
    return {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "dct": "http://purl.org/dc/terms/",
            "conformsTo": "dct:conformsTo",
            "citeAs": "cr:citeAs",
            "column": "cr:column",
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "extract": "cr:extract",
            "field": "cr:field",
            "fileObject": "cr:fileObject",
            "fileSet": "cr:fileSet",
            "includes": "cr:includes",
            "recordSet": "cr:recordSet",
            "source": "cr:source",
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"microturn-{dataset['digests']['content'][:12]}",
        "description": "200 ms micro-turns of conversations: what is heard and seen, own speech, words, events, tokens. "
        + " · ".join(f"{name}: {_told(values)}" for name, values in rights.items()),
        "version": "1.0.0",
        "license": rights["license"] or ["not stated by the input"],
        "distribution": [*shards, index],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "windows", "name": "windows", "field": fields}],
    }
