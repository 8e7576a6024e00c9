"""Of the report's requests one by one, the slowest, stalls, workers, user classes and turns."""

from __future__ import annotations

from typing import Final

TEXTS: Final = {
    # the timeline
    "Requests one by one": "逐个请求",
    "A bar is a request, in the first line that was free then: a line is no user. Point at it for its id and its "
    "times. Not chosen by how they went: each picture has every request that started nearest to its moment, up "
    "to {most}.":
        "一条横条是一个请求，放在当时第一条空闲的行上：一行并不是一个用户。指向它可看到其标识和各段时间。样本不按结"
        "果挑选：每幅图包含开始时刻最接近该时刻的全部请求，最多 {most} 个。",
    "{count} requests that started from {start} to {end} s, {where}":
        "{start} 至 {end} s 之间开始的 {count} 个请求，{where}",
    "in the middle of the whole run": "位于整个运行的中间",
    "in the middle of the steady window": "位于稳态窗口的中间",
    "around the highest TTFT, {ms} ms": "位于 TTFT 最高（{ms} ms）的时刻附近",
    "around the longest stall, {s} s": "位于最长停顿（{s} s）的时刻附近",
    "client late": "客户端迟发",
    "connecting": "建立连接",
    "sending": "发送",
    "waiting for the first token": "等待首 token",
    "tokens": "token 到达",
    "to the end": "至结束",
    "stood still": "停顿",
    "failed or timed out": "失败或超时",
    "cancelled or cut": "取消或被截断",
    "the one that this is about": "所说的那个请求",
    "worker {worker}, started at {at} s": "worker {worker}，开始于 {at} s",
    "{into} tokens in, {out} out": "输入 {into} token，输出 {out}",
    "client late {ms} ms, to sent {sent} ms": "客户端迟发 {ms} ms，至发出 {sent} ms",
    "TTFT {ttft} ms, TPOT {tpot} ms, end to end {e2e} ms": "TTFT {ttft} ms，TPOT {tpot} ms，端到端 {e2e} ms",
    "longest gap {gap} ms": "最长间隔 {gap} ms",
    # stalls
    "Stalls": "停顿",
    "A stall: nothing of a reply came for longer than {limit} s, that is a second, or ten times the median gap "
    "where that is more. Each request counts once, by its longest gap, over the whole run. When it ended is "
    "known to the second at best; where it is known less well, a line shows between when.":
        "停顿：回复超过 {limit} s 没有任何数据（一秒，或间隔中位数的十倍，取较大者）。整个运行中每个请求按其"
        "最长间隔只计一次。结束时刻至多精确到秒；不够精确时，以横线表示其可能的范围。",
    "No reply that went on had stood still. The longest gap was {longest} s, of {id}.":
        "继续下去的回复都没有停顿过。最长间隔为 {longest} s，属于 {id}。",
    "{requests} of {streamed} streamed replies stood still ({share}), for {longest} s at most: {id}.":
        "{streamed} 个流式回复中有 {requests} 个停顿（{share}），最长 {longest} s：{id}。",
    "{count} replies fell silent and never went on: their requests failed, or were given up or cut.":
        "有 {count} 个回复中途沉默，再未继续：这些请求失败、被放弃或被截断。",
    "All of them are worker {worker}'s, which chance would hardly bring about: look at its host, and at the "
    "network between it and the server.":
        "它们全部属于 worker {worker}，几乎不可能出于偶然：请检查其主机及其与服务端之间的网络。",
    "Up to {at} s ({utc} UTC), {requests} of {streaming} replies in progress stood still for {median} s (median; the longest "
    "{longest} s), on workers {workers}. {why}":
        "至 {at} s（{utc} UTC）为止，在途的 {streaming} 个回复里有 {requests} 个停顿了 {median} s（中位数；最长 {longest} s）"
        "，位于 worker {workers}。{why}",
    "At least half of all replies at once: the server paused, or what all share on the way to it.":
        "至少一半的回复同时停顿：服务端，或通往它的共同路径，暂停了。",
    "Those of one worker, while others' went on: look at its host, and its way to the server.":
        "仅一个 worker 的回复停顿，其他仍在继续：请检查其主机及其到服务端的路径。",
    "Some of many, while others went on: requests that the server put off, most likely.":
        "许多回复中的一部分停顿，其他仍在继续：很可能是服务端推迟了这些请求。",
    "Others stood still too, but it is not known when: whose fault it was cannot be told.":
        "另有回复也曾停顿，但时刻不明：无法判断问题出在哪一方。",
    "When each stall ended, and how long it was": "每次停顿的结束时刻及其长度",
    "When each of the {count} longest stalls ended, and how long it was":
        "最长的 {count} 次停顿各自的结束时刻及其长度",
    "other workers": "其他 worker",
    "stalls per {s} s": "每 {s} s 的停顿数",
    "length, s": "长度，s",
    # the slowest
    "The slowest requests": "最慢的请求",
    "Of the requests that the figures above are about. Suspect, half above the median and more, is whoever has the "
    "largest part of that. Server: the server, or the network to it. Connection: until the request was sent. "
    "Client: its own delay, or what it does not know since it read late. Length: the reply is longer than the median's.":
        "取自上文各项数据所涉及的请求。超出中位数一半以上时，疑似原因是超出部分中占比最大的一方。服务端：服务端或通往"
        "它的网络。连接："
        "请求发出之前。客户端：自身的延迟，或因读取过晚而无法得知的部分。长度：回复比中位数更长。",
    "By TTFT": "按 TTFT",
    "By end to end": "按端到端",
    "By the longest gap between chunks": "按数据块间最长间隔",
    "suspect: {who}": "疑似：{who}",
    "none is far above the median": "没有一个远高于中位数",
    "server": "服务端",
    "connection": "连接",
    "client": "客户端",
    "length": "长度",
    "reused": "复用",
    "new": "新建",
    "× median": "中位数的倍数",
    "Suspect": "疑似原因",
    "started, s; UTC": "开始，s；UTC",
    "TTFT, ms": "TTFT，ms",
    "longest gap, ms": "最长间隔，ms",
    "tokens in / out": "输入 / 输出 token",
    "in flight / of its worker": "在途 / 同一 worker",
    "started ± 1 s": "± 1 s 内开始",
    "waiting at the server": "服务端排队",
    "GPUs, %": "GPU，%",
    "client late, ms": "客户端迟发，ms",
    "to sent, ms": "至发出，ms",
    "client lag, ms": "客户端滞后，ms",
    "unsure by, ms": "不确定度，ms",
    "worker CPU, %": "worker CPU，%",
    "step": "级别",
    "who, and the id of its request": "来源与请求标识",
    "worker {worker}": "worker {worker}",
    # workers
    "By worker": "按 worker",
    "End to end p50": "端到端 p50",
    "No worker stands out by its median TTFT or TPOT.": "没有哪个 worker 的 TTFT 或 TPOT 中位数明显不同。",
    "Too few requests of each worker to tell them apart.": "各 worker 的请求太少，无法比较。",
    "Milliseconds. All workers load the same server in the same way: one that stands out has a slow host, or a "
    "network path of its own. Told apart are medians of one user class whose 95 % intervals do not overlap, and "
    "that are 10 % and 1 ms apart.":
        "单位为毫秒。所有 worker 以同样的方式向同一服务端施压：明显不同的那个，要么主机慢，要么网络路径不同。只有同一"
        "用户类的中位数，其 95 % 区间互不重叠，且相差 10 % 和 1 ms 以上，才视为不同。",
    "Worker {worker} ({host}): median {figure} {median} ms, {others} ms on the others ({change}), of {requests} "
    "requests.":
        "worker {worker}（{host}）：{figure} 中位数 {median} ms，其他 worker 为 {others} ms（{change}），共 "
        "{requests} 个请求。",
    "Worker {worker} ({host}): median {figure} {median} ms, {others} ms on the others ({change}), of {requests} "
    "requests of {user}.":
        "worker {worker}（{host}）：{figure} 中位数 {median} ms，其他 worker 为 {others} ms（{change}），共 "
        "{requests} 个 {user} 请求。",
    # user classes and turns
    "User classes side by side": "用户类并列",
    "Each user class from p5 to p95; the box is the middle half, the line in it the median":
        "每个用户类从 p5 到 p95；箱体为中间 50 %，其中的线为中位数",
    "Conversations by turn": "按轮次看对话",
    "Does the first token come later the longer the conversation has become? Milliseconds.":
        "对话越长，首 token 是否来得越晚？单位为毫秒。",
    "Turn": "轮次",
    "turn {turn}": "第 {turn} 轮",
    "input tokens, mean": "输入 token，均值",
    "of it cached": "其中已缓存",
    "TTFT by turn, from p5 to p95; the box is the middle half, the line in it the median":
        "各轮次的 TTFT，从 p5 到 p95；箱体为中间 50 %，其中的线为中位数",
    # errors
    "The first: to be found in logs": "首个：可在日志中查找",
    "at {at} s ({utc} UTC), worker {worker}": "{at} s（{utc} UTC），worker {worker}",
    "Each request took its id along as X-Request-Id: look for that in the server's logs, at its time in UTC.":
        "每个请求都以 X-Request-Id 带上了自己的标识：可按它和 UTC 时刻在服务端日志中查找。",
}  # fmt: skip
