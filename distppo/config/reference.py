"""Writes docs/configuration.md from the schema: `python -m distppo.config.reference > docs/configuration.md`."""

from __future__ import annotations

from distppo.config.dump import format_value
from distppo.config.fields import FIELDS, SECTIONS, Field, kind_in_words, limits_in_words
from distppo.config.schema import Plugin

INTRODUCTION = """\
# Configuration

This page is written by `python -m distppo.config.reference > docs/configuration.md`; a test fails when it is out of date.

## Where a setting comes from

Defaults < YAML files, left to right < named flags < `--set`. What comes later counts:

```
python launch.py train --config configs/walker2d.yaml my.yaml --num-envs 16 --set ppo.gamma=0.98 network.hidden_sizes=128,128
```

A file holds sections with their settings, as many as you want to change:

```yaml
env:
  id: Walker2d-v4
ppo:
  learning_rate: 3e-4
  target_kl: off
```

`config show --explain` with the same flags prints every value and where it comes from; `config check FILE ...` says whether files
are right. A run keeps its settings, resolved, in `config.yaml` of its directory, which `--config` takes as well.

When a run is continued with `--resume` or `--checkpoint`, its own settings take the place of the defaults: files and flags count over them.

From Python, keyword arguments take the place of flags and `overrides` that of `--set`:

```python
import distppo

config = distppo.load_config("configs/walker2d.yaml", num_envs=16, overrides={"ppo.gamma": 0.98})
```

## How values are written

Values are read by the type of their setting, in YAML and on the command line alike:

| Kind | Written as |
|---|---|
| whole number | `8`, `1e6`, `2M`, `500k`, `1_000_000`; `1.5` is an error |
| range of whole numbers | `2-8`, where a setting takes one |
| number | `3e-4`, `0.0003`, `1`; not NaN, not infinite |
| true or false | `true`, `yes`, `on`, `false`, `no`, `off` |
| choice | one of its words, `off` included where it is one of them |
| text | with or without quotes, where the shell leaves them to `--set` |
| whole numbers | `[64, 64]`, or `64,64` on the command line |
| mapping | YAML; values are text, numbers, booleans, null, lists and mappings |
| list of plug-ins | `module:Class` each, or `{class: module:Class, name: value}` with arguments; one alone needs no list |
| a setting that may be off | `off`, `none`, `null` or nothing, where the default or range says `off` |
| a setting that may be auto | `auto`, `none`, `null` or nothing, where the default or range says `auto` |

Quotes in a mapping keep a value text: `{level: "3"}`. `--set env.kwargs.level=3` sets one entry; a mapping replaces all of an earlier one.
Tags (`!name`), aliases (`*name`) and files above 128 KiB are refused.

## When something is wrong

Everything is checked before anything starts, and all that is wrong is shown at once, each with its place:

```
$ python launch.py train --config my.yaml --num-envs 0 --set ppo.epochs=ten
error: 3 problems:
  my.yaml:4:3  unknown key ppo.clip_epsilom - did you mean ppo.clip_epsilon?
  --num-envs 0  rollout.num_envs must be at least 1 and at most 1048576, got 0
  --set ppo.epochs=ten  ppo.epochs must be a whole number, got 'ten'
```

So are settings that do not fit together:

```
$ python launch.py train --set ppo.mini_batch_size=100
error: --set ppo.mini_batch_size=100  batch 16384 = 8 envs x 2048 steps is not a multiple of mini_batch_size 100: 84 samples of every \
epoch would be left over; 64 or 128 divide it
```

The exit code is then 2.

# Settings
"""


def reference() -> str:
    """Returns the text of docs/configuration.md: the introduction, then a table a section."""
    return "\n".join([INTRODUCTION, *(_section(name) for name in SECTIONS)])


def _section(name: str) -> str:
    summary = (SECTIONS[name].__doc__ or "").strip()
    rows = [_row(field) for field in FIELDS.values() if field.section == name]
    header = ["| Setting | Default | Range | Meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {name}", "", summary, "", *header, *rows, ""])


def _row(field: Field) -> str:
    meaning = " ".join(text for text in (field.doc, field.extremes) if text)
    cells = [f"`{field.key}`", f"`{format_value(field, field.default)}`", _range(field), meaning]
    return f"| {' | '.join(cell.replace('|', '&#124;').replace('<', '&lt;') for cell in cells)} |"


def _range(field: Field) -> str:
    if field.choices:
        return ", ".join(f"`{choice}`" for choice in (*field.choices, *([field.none] if field.optional else [])))
    kind = {tuple: "whole numbers", dict: "a mapping", Plugin: "a list of plug-ins"}.get(field.kind) or kind_in_words(field)
    limits = limits_in_words(field)
    if field.optional:
        kind = kind.removesuffix(f" or {field.none}")
        limits += f"{', ' if limits else ''}or `{field.none}`"
    return ", ".join(part for part in (kind, limits) if part)


if __name__ == "__main__":
    print(reference(), end="")
