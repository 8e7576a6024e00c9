"""Sentences that summary.json has in English, their places filled: of phases, of the verdict's subjects, of defects."""

from __future__ import annotations

from typing import Final

TEXTS: Final = {
    "the client": "客户端",
    "{n} requests": "{n} 个请求",
    "{what} went from {first} to {second}": "{what}从 {first} 变为 {second}",
    "output tokens": "输出 token",
    "requests in flight": "在途请求",
    "{n} too few, {more} too many": "{n} 个偏少，{more} 个偏多",
    "{took} s for {users} users": "{users} 个用户用了 {took} s",
    "No steady window: {why}. The figures cover the whole run, ramp and drain included.": "没有稳态窗口：{why}。数字涵盖整个运行，包括加压和收尾。",
    "load did not stay at its target for longer than the settling time of {time}": "负载在目标值上停留的时间没有超过预热时间 {time}",
    "the asked number of users was never reached": "用户数始终没有达到要求",
    "its users were never all there": "用户始终没有到齐",
    "it did not last longer than the settling time of {time}": "持续时间没有超过预热时间 {time}",
    "nobody was asked for": "要求的用户数为零",
    "{file} is missing.": "缺少 {file}。",
    "{file} cannot be read: {why}.": "{file} 无法读取：{why}。",
    "{file} is damaged and was left out: {why}.": "{file} 已损坏，未采用：{why}。",
    "{file}: {name} is not as expected and was left out ({why}).": "{file}：{name} 不符合预期，未采用（{why}）。",
    "{file}: the last line is torn and was left out.": "{file}：最后一行不完整，未采用。",
    "{file}: the last row is torn ({n} characters) and was left out.": "{file}：最后一行不完整（{n} 个字符），未采用。",
    "{file}: {n} lines are damaged and were left out.": "{file}：{n} 行已损坏，未采用。",
    "{file}: {n} rows are damaged and were left out.": "{file}：{n} 行记录已损坏，未采用。",
    "{file}: {n} lines are there twice, and count once.": "{file}：{n} 行重复，只计一次。",
    "{file}: {n} rows are there twice, and count once.": "{file}：{n} 行记录重复，只计一次。",
    "{file} is empty: it has not even the names of its columns.": "{file} 是空的，连列名都没有。",
    "{file} lacks the columns {names}.": "{file} 缺少列 {names}。",
    "{file} cannot be read any further than its first {n} samples: a quotation mark has no end.": "{file} 只能读出前 {n} 个样本：有一个引号没有结束。",
    "{file} is empty: nothing is known of each second.": "{file} 是空的：没有逐秒的数据。",
    "{file}: {n} cells that should be numbers are not; they count as not measured.": "{file}：{n} 个本应是数字的单元格不是数字，按未测得处理。",
    "{file} has no end: the run was killed, crashed, or is still going on.": "{file} 没有结束记录：运行被杀掉、崩溃，或仍在进行。",
    "{n} rows could not be written while the run went on.": "运行中有 {n} 行记录无法写入。",
    "ITL could not be read from the intervals: {why}.": "无法从区间数据读出 ITL：{why}。",
    "The lag of reads could not be read from the intervals: {why}.": "无法从区间数据读出读取滞后：{why}。",
}
