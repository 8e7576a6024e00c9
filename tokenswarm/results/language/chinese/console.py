"""What only the table on the console says."""

from __future__ import annotations

from typing import Final

TEXTS: Final = {
    "Report": "报告",
    "SIMULATOR: these figures are about tokenswarm's built-in simulator. No real model server was measured.": "模拟器：以下数字来自 tokenswarm 内置的模拟器，没有测量任何真实的模型服务。",
    "Verdict: {level}": "结论：{level}",
    "defect": "缺陷",
    "Capacity: ": "容量：",
    "Everything below is of the level that passed.": "以下数字均取自通过的级别。",
    "Everything below is of all levels that were tried, since none passed.": "没有级别通过，以下数字取自试过的所有级别。",
    "whole run": "整个运行",
    "all": "全部",
    "Latency in ms": "延迟，ms",
    "Latency: nothing was measured": "延迟：什么都没有测到",
    "~ too few requests for this percentile": "~ 样本太少，该分位数不足为据",
    "and {n} more in the report": "另有 {n} 项见报告",
    "per s": "每秒",
    "per s and user": "每秒每用户",
    "requests (ok)": "成功请求",
    "inputs embedded": "嵌入输入",
    "output tokens (estimate)": "输出 token（估计值）",
    "input tokens": "输入 token",
    "all tokens": "全部 token",
    "characters": "字符",
    "chunks": "数据块",
    "Concurrency: {n} requests in flight on average": "并发：平均 {n} 个在途请求",
    " of {n} users ({share})": "，共 {n} 个用户（{share}）",
    "Prompts: ": "提示词：",
    "Prefixes: ": "公共前缀：",
    "Errors of the whole run": "整个运行的错误",
    "share": "占比",
}
