"""Messy files of an invented domain, the care of coffee machines.

Written here, so that the commands of docs/domain.md have something to read:
a table in GB18030 and lines of JSON, with remains of HTML, copies, and words
that no general vocabulary has.
"""

import csv
import json
import random

MACHINES = ("KafuBot X2", "KafuBot X3", "MokaJet Pro", "BaristaOne")
PARTS = {
    "水路": ("水泵", "进水阀", "流量计", "滤芯", "蒸汽管"),
    "加热": ("锅炉", "温度探头", "加热管", "PID控制器", "保温层"),
    "研磨": ("磨豆机", "刀盘", "豆仓", "粉槽", "GrindPid电机"),
}
SIGNS = {
    "水路": ("不出水", "漏水", "出水很慢", "萃取压力不足"),
    "加热": ("温度偏低", "一直不热", "显示E07", "忽冷忽热"),
    "研磨": ("有异响", "粉太粗", "卡住不转", "出粉不均匀"),
}
REMEDIES = (
    "先断电，再用软布擦干净",
    "拆下来泡在除垢液里十分钟",
    "更换密封圈并重新校准",
    "按说明书恢复出厂设置",
    "把螺丝拧紧半圈再试一次",
)
ENDINGS = (
    "之后就正常了。",
    "问题没有再出现😃！",
    "第二天又坏了……",
    "客户很满意。",
)


def note(rng):
    """Returns (label, title, content) of a report from the workshop."""
    label = rng.choice(sorted(PARTS))
    machine, part = rng.choice(MACHINES), rng.choice(PARTS[label])
    sign, count = rng.choice(SIGNS[label]), rng.randrange(2, 90)
    title = f"{machine}的{part}{sign}"
    content = (
        f"客户说{machine}用了{count}天，{part}{sign}。"
        f"我们检查了{part}，发现espresso模式下{rng.choice(SIGNS[label])}。"
        f"处理办法：{rng.choice(REMEDIES)}，{rng.choice(ENDINGS)}"
        f"备注：{rng.choice(PARTS[label])}建议每{count}天用descaler清洗一次。"
    )
    return label, title, content


def write(folder, notes=160, seed=0):
    """Writes `raw/` and `task/` into a folder."""
    rng = random.Random(seed)
    found = list({row[1:]: row for row in map(note, [rng] * notes)}.values())
    raw, task = folder / "raw", folder / "task"
    raw.mkdir(), task.mkdir()
    half = len(found) // 2
    with open(raw / "notes.csv", "w", encoding="gb18030", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["编号", "title", "content"])
        for number, (_, title, content) in enumerate(found[:half]):
            content = content.replace("。", "。<br/>&nbsp;", 1)
            rows.writerow([number, title, content])
            if number % 5 == 0:
                rows.writerow([number + 1000, title, content])  # a copy
    with open(raw / "articles.jsonl", "w", encoding="utf-8") as file:
        for _, title, content in found[half:]:
            value = {"title": title, "content": f"<p>{content}</p>"}
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
    for split, part in (("train", found[:-30]), ("dev", found[-30:])):
        with open(task / f"{split}.tsv", "w", encoding="utf-8") as file:
            file.write("text\tlabel\n")
            for label, title, _ in part:
                file.write(f"{title}\t{label}\n")
