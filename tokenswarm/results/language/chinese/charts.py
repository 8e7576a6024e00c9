"""What stands in charts: axes, legends, phases."""

from __future__ import annotations

from typing import Final

TEXTS: Final = {
    "seconds since the start": "开始后的秒数",
    "ramp": "加压",
    "steady": "稳态",
    "drain": "收尾",
    "asked: users": "要求：用户数",
    "asked: users × {rate} requests/s": "要求：用户数 × {rate} 请求/s",
    "offered: users running": "施加：运行中的用户",
    "offered: requests due/s": "施加：应发请求/s",
    "achieved: requests in flight": "实际：在途请求",
    "achieved: requests sent/s": "实际：已发请求/s",
    "users, requests": "用户、请求",
    "requests in flight": "在途请求",
    "output tokens/s": "输出 token/s",
    "chunks/s": "数据块/s",
    "requests ended, ok": "结束的请求，成功",
    "requests ended, not ok": "结束的请求，未成功",
    "not ok": "未成功",
    "median": "中位数",
    "share below": "累计占比",
    "share below, %": "累计占比，%",
    "errors per {width} s": "每 {width} s 的错误数",
    "CPU, % of a core": "CPU，占一个核的 %",
    "loop busy, ms": "循环忙碌，ms",
}
