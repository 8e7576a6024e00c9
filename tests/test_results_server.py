"""What a server's own page says of a run, by hand: each server's names, counters from page to page, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from run_directory_maker import T0

from tokenswarm.results import phases, read, report, summarise
from tokenswarm.results.charts import together
from tokenswarm.results.figures import server
from tokenswarm.results.figures.server_names import SERVERS
from tokenswarm.results.language import ENGLISH

HEADER = "time,source,metric,labels,value\n"
PAGE = "http://server:8000/metrics"
Told = tuple[float, str, float]

# Ten users, each a request every two seconds of 11 output and 100 input tokens; steady from 12 s to 60 s, end at 62 s.
TOKENS_PER_S = 55


def page(told: Sequence[Told], labels: str = "", source: str = PAGE) -> str:
    quoted = '"' + labels.replace('"', '""') + '"' if labels else ""
    return "".join(f"{T0 + at:.6f},{source},{metric},{quoted},{value}\n" for at, metric, value in told)


def up(source: str = PAGE, until: int = 63) -> str:
    return page([(second, "up", 1) for second in range(until)], source=source)


def counter(metric: str, per_second: float, until: int = 63, begin: float = 1e6) -> list[Told]:
    return [(second, metric, begin + per_second * second) for second in range(until)]


def made(folder: Path, *lines: str, **change: Any) -> Path:
    def changed(record: maker.Record, index: int) -> None:
        record.remote_addr = "10.0.0.9:8000"
        for name, value in change.items():
            setattr(record, name, value)

    records = maker.closed_loop(e2e=2.0, change=changed)
    directory = maker.write(folder, records, maker.boundaries(10, 2, 60, 62))
    (directory / "server_metrics.csv").write_text(HEADER + "".join(lines))
    return directory


def told(directory: Path) -> dict[str, Any]:
    found = summarise.summarise(read.load(directory))["server"]
    assert found is not None
    return dict(found)


def test_every_figure_of_one_server(tmp_path: Path) -> None:
    lines = [
        up(),
        page([(0, "vllm:num_requests_running", 1), (10, "vllm:num_requests_running", 8)]),
        page([(40, "vllm:num_requests_running", 6)]),
        page([(0, "vllm:num_requests_waiting", 0), (36, "vllm:num_requests_waiting", 4)]),
        page([(0, "vllm:kv_cache_usage_perc", 0.25), (48, "vllm:kv_cache_usage_perc", 0.75)]),
        page([(0, "vllm:num_preemptions_total", 5), (11, "vllm:num_preemptions_total", 6)]),
        page([(30, "vllm:num_preemptions_total", 9), (61, "vllm:num_preemptions_total", 99)]),
        page(counter("vllm:prefix_cache_queries_total", 2000)),
        page(counter("vllm:prefix_cache_hits_total", 500)),
        page(counter("vllm:spec_decode_num_draft_tokens_total", 100)),
        page(counter("vllm:spec_decode_num_accepted_tokens_total", 80)),
        page(counter("vllm:generation_tokens_total", TOKENS_PER_S)),
        page(counter("vllm:prompt_tokens_total", 500)),
        page(counter("vllm:time_to_first_token_seconds_sum", 5 * 0.09)),
        page(counter("vllm:time_to_first_token_seconds_count", 5)),
    ]
    found = told(made(tmp_path, *lines))
    (one,) = found["sources"]
    assert (one["source"], one["server"], one["pages"], one["unanswered"]) == ("server:8000", "vLLM", 48, 0)
    assert one["running"] == {"mean": (28 * 8 + 20 * 6) / 48, "max": 8}
    assert one["waiting"] == {"mean": 2, "max": 4}
    assert one["kv_cache"] == {"mean": (36 * 0.25 + 12 * 0.75) / 48, "max": 0.75}
    assert one["preemptions"] == 3
    assert (one["prefix_asked"], one["prefix_found"], one["prefix_hit_share"]) == (96_000, 24_000, 0.25)
    assert (one["drafted"], one["accepted"], one["acceptance_share"]) == (4800, 3840, 0.8)
    assert (one["output_tokens"], one["input_tokens"]) == (55 * 48, 500 * 48)
    assert one["ttft_count"] == 240
    assert one["ttft_ms"] == pytest.approx(90)
    assert found["ours"]["from"] == [(T0 + 12, T0 + 60)]
    assert found["ours"]["ttft_ms"] == pytest.approx(99.8)
    assert found["ours"]["ttft_count"] == 240
    assert found["ours"]["output_tokens"] == pytest.approx(55 * 48, rel=0.03)


@pytest.mark.parametrize(
    ("server", "running", "tokens"),
    [
        ("SGLang", "sglang:num_running_reqs", "sglang:generation_tokens_total"),
        ("TGI", "tgi_batch_current_size", "tgi_request_generated_tokens_sum"),
        ("llama.cpp", "llamacpp:requests_processing", "llamacpp:tokens_predicted_total"),
        ("LiteLLM", "litellm_in_flight_requests", "litellm_output_tokens_metric_total"),
    ],
)
def test_each_server_goes_by_its_own_names(tmp_path: Path, server: str, running: str, tokens: str) -> None:
    (one,) = told(made(tmp_path, up(), page([(0, running, 7)]), page(counter(tokens, 100))))["sources"]
    assert (one["server"], one["running"], one["output_tokens"]) == (server, {"mean": 7, "max": 7}, 4800)
    assert one["kv_cache"] is one["ttft_ms"] is one["preemptions"] is None, "what it does not tell is no zero"


def test_no_two_servers_have_a_name_in_common() -> None:
    names = [name for server in SERVERS for name in {*server.metrics(), *server.histograms()}]
    assert len(names) == len(set(names))


def test_llama_cpps_cached_tokens_are_part_of_the_input(tmp_path: Path) -> None:
    lines = [page(counter(f"llamacpp:prompt_tokens{what}_total", n)) for what, n in (("", 30), ("_cached", 10))]
    (one,) = told(made(tmp_path, up(), *lines))["sources"]
    assert (one["input_tokens"], one["prefix_hit_share"]) == (40 * 48, 0.25)


def test_the_newer_name_of_a_metric_counts_where_a_page_has_both(tmp_path: Path) -> None:
    lines = page([(0, "vllm:kv_cache_usage_perc", 0.5), (0, "vllm:gpu_cache_usage_perc", 0.9)])
    (one,) = told(made(tmp_path, up(), lines))["sources"]
    assert one["kv_cache"] == {"mean": 0.5, "max": 0.5}


def test_engines_of_one_page_are_added_up_and_the_fullest_cache_counts(tmp_path: Path) -> None:
    lines = []
    for engine, share in ((0, 0.2), (1, 0.6)):
        labels = f'engine="{engine}"'
        lines += [
            page([(0, "vllm:num_requests_running", 4), (0, "vllm:kv_cache_usage_perc", share)], labels),
            page(counter("vllm:generation_tokens_total", 50), labels),
        ]
    (one,) = told(made(tmp_path, up(), *lines))["sources"]
    assert (one["running"]["mean"], one["output_tokens"], one["kv_cache"]["max"]) == (8, 100 * 48, 0.6)


def test_shares_that_engines_tell_are_not_added_up(tmp_path: Path) -> None:
    lines = [
        page([(0, "sglang:cache_hit_rate", hit), (0, "sglang:spec_accept_rate", taken)], f'tp_rank="{rank}"')
        for rank, hit, taken in ((0, 0.9, 0.6), (1, 0.7, 0.8))
    ]
    (one,) = told(made(tmp_path, up(), *lines))["sources"]
    assert (one["prefix_hit_share"], one["acceptance_share"]) == pytest.approx((0.8, 0.7))


def test_two_servers_behind_one_address_are_two(tmp_path: Path) -> None:
    lines = []
    for name, running in (("a", 3), ("b", 5)):
        source = f"http://gate:1/metrics?target={name}"
        until = 63 if name == "a" else 60  # one's page fails to come at times
        lines += [up(source, until), page([(0, "vllm:num_requests_running", running)], source=source)]
    found = told(made(tmp_path, *lines))
    assert [(one["source"], one["running"]["mean"]) for one in found["sources"]] == [
        ("gate:1?target=a", 3), ("gate:1?target=b", 5),
    ]  # fmt: skip


def test_servers_have_figures_of_their_own_and_together(tmp_path: Path) -> None:
    lines = []
    for name, per_second, ttft in (("a", 100, 0.1), ("b", 20, 0.4)):
        source = f"http://{name}:1/metrics"
        told_here = counter("vllm:generation_tokens_total", per_second)
        told_here += counter("vllm:time_to_first_token_seconds_sum", 10 * ttft)
        told_here += counter("vllm:time_to_first_token_seconds_count", 10)
        lines += [up(source), page([(0, "vllm:num_requests_running", 3), *told_here], source=source)]
    found = told(made(tmp_path, *lines))
    assert [one["source"] for one in found["sources"]] == ["a:1", "b:1"]
    assert [one["output_tokens"] for one in found["sources"]] == [4800, 960]
    assert (found["all"]["output_tokens"], found["all"]["running"]) == (5760, {"mean": 6})
    assert found["all"]["ttft_ms"] == pytest.approx(250)


def test_a_gateway_and_the_server_behind_it_are_not_added_up(tmp_path: Path) -> None:
    lines = []
    for name, tokens in (("gate", "litellm_output_tokens_metric_total"), ("s", "vllm:generation_tokens_total")):
        source = f"http://{name}:1/metrics"
        lines += [up(source), page(counter(tokens, TOKENS_PER_S), source=source)]
    found = told(made(tmp_path, *lines))
    assert [one["output_tokens"] for one in found["sources"]] == [2640, 2640]
    assert found["all"]["output_tokens"] is None


def test_a_counter_that_began_anew_in_the_window_is_unknown(tmp_path: Path) -> None:
    restarted = counter("vllm:generation_tokens_total", 220, until=30)
    restarted += [(second, "vllm:generation_tokens_total", second * 220) for second in range(30, 63)]
    (one,) = told(made(tmp_path, up(), page(restarted)))["sources"]
    assert one["output_tokens"] is None


def test_pages_that_end_long_before_the_window_tell_no_growth(tmp_path: Path) -> None:
    lines = page(counter("vllm:generation_tokens_total", 220, until=40))
    found = told(made(tmp_path, up(until=40), lines))
    assert found["sources"][0]["output_tokens"] is None
    assert found["ours"]["output_tokens"] is None


def test_a_page_of_something_else_is_no_server(tmp_path: Path) -> None:
    summary = summarise.summarise(read.load(made(tmp_path, up(), page([(0, "node_load1", 3)]))))
    assert summary["server"] is None


# The verdict's line


def level(directory: Path) -> str:
    reasons = summarise.summarise(read.load(directory))["verdict"]["reasons"]
    return next((reason["level"] for reason in reasons if reason["rule"] == "usage_against_counter"), "silent")


@pytest.mark.parametrize(
    ("share", "said"), [(1.0, "silent"), (1.015, "silent"), (1.03, "degraded"), (0.97, "degraded")]
)
def test_usage_is_held_against_the_servers_counter(tmp_path: Path, share: float, said: str) -> None:
    lines = page(counter("vllm:generation_tokens_total", TOKENS_PER_S * 60 / 62 * share, begin=0))
    assert level(made(tmp_path, up(), lines)) == said


def test_a_counter_that_is_behind_proves_nothing(tmp_path: Path) -> None:
    lines = page(counter("litellm_output_tokens_metric_total", TOKENS_PER_S / 2))
    assert level(made(tmp_path, up(), lines)) == "silent"


def test_what_a_cancelled_reply_may_have_cost_is_no_fault_of_usage(tmp_path: Path) -> None:
    """A tenth of the replies were cut; the server may have gone on with them to the length that was asked for."""

    def cut(record: maker.Record, index: int) -> None:
        record.asked_output_tokens = 11
        if index % 10 == 0:
            record.status, record.output_tokens, record.token_source = "cancelled", 1, "chunks"

    maker.write(tmp_path, maker.closed_loop(e2e=2.0, change=cut), maker.boundaries(10, 2, 60, 62))
    lines = page(counter("vllm:generation_tokens_total", TOKENS_PER_S * 60 / 62, begin=0))
    (tmp_path / "server_metrics.csv").write_text(HEADER + up() + lines)
    assert level(tmp_path) == "silent"
    (tmp_path / "server_metrics.csv").write_text(
        HEADER
        + up()
        + lines.replace("vllm:generation", "x")
        + page(counter("vllm:generation_tokens_total", TOKENS_PER_S * 60 / 62 * 0.8, begin=0))
    )
    assert level(tmp_path) == "degraded", "but the whole replies are certain"


def test_counters_of_fewer_servers_than_answered_prove_nothing(tmp_path: Path) -> None:
    def two_servers(record: maker.Record, index: int) -> None:
        record.remote_addr = f"10.0.0.{index % 2}:8000"

    maker.write(tmp_path, maker.closed_loop(e2e=2.0, change=two_servers), maker.boundaries(10, 2, 60, 62))
    lines = page(counter("vllm:generation_tokens_total", TOKENS_PER_S / 2))
    (tmp_path / "server_metrics.csv").write_text(HEADER + up() + lines)
    assert level(tmp_path) == "silent"


def test_a_counter_read_when_requests_were_under_way_counts_from_there(tmp_path: Path) -> None:
    late = [(t, m, v) for t, m, v in counter("vllm:generation_tokens_total", TOKENS_PER_S, until=61) if t >= 4]
    late += [(61, "vllm:generation_tokens_total", late[-1][2]), (62, "vllm:generation_tokens_total", late[-1][2])]
    pages = page([(second, "up", 1) for second in range(4, 63)])
    assert level(made(tmp_path, pages, page(late))) == "silent"


def test_servers_whose_first_pages_came_apart_are_counted_from_the_later_one(tmp_path: Path) -> None:
    """Half of the tokens each; the second server's page came four seconds late."""

    def two_servers(record: maker.Record, index: int) -> None:
        record.remote_addr, record.asked_output_tokens = f"10.0.0.{index % 2}:8000", 11

    maker.write(tmp_path, maker.closed_loop(e2e=2.0, change=two_servers), maker.boundaries(10, 2, 60, 62))
    text = HEADER
    for name, late in (("a", 0), ("b", 4)):
        source = f"http://{name}:1/metrics"
        seconds = range(late, 63)
        text += page([(second, "up", 1) for second in seconds], source=source)
        grown = [(second, "vllm:generation_tokens_total", min(second, 60) * TOKENS_PER_S / 2) for second in seconds]
        text += page(grown, source=source)
    (tmp_path / "server_metrics.csv").write_text(text)
    run = read.load(tmp_path)
    found = server.generated(run)
    assert found is not None
    assert found.made == pytest.approx(56 * TOKENS_PER_S)
    assert found.least == found.most == pytest.approx(56 * TOKENS_PER_S, abs=found.unsure)


def test_usage_that_is_estimated_here_is_not_held_against_the_server(tmp_path: Path) -> None:
    lines = page(counter("vllm:generation_tokens_total", TOKENS_PER_S * 2))
    assert level(made(tmp_path, up(), lines, token_source="chunks")) == "silent"


def test_the_report_shows_both_sides_and_takes_nothing_for_markup(tmp_path: Path) -> None:
    hostile = "http://<b>evil</b>/metrics"
    lines = [up(hostile), page(counter("vllm:generation_tokens_total", TOKENS_PER_S * 60 / 62), source=hostile)]
    lines += [page([(0, "vllm:num_requests_running", 7)], source=hostile)]
    run = read.load(made(tmp_path, *lines))
    text = report.render(run, summarise.summarise(run))
    assert "The server&#x27;s own figures" in text
    assert "measured from here" in text
    assert 'id="chart-together"' in text
    assert "<b>evil" not in text
    assert "KV cache in use, mean (highest)" not in text, "it told none"


def test_pages_that_came_late_and_all_at_once_are_no_pause_of_the_server(tmp_path: Path) -> None:
    """The counter is drawn as it grew over the seconds before, not as the nothing between two pages of one moment."""
    seconds = [*range(20), 23.0, 23.004, *range(24, 63)]
    told_late = [(second, "vllm:generation_tokens_total", 1e6 + 55 * int(second)) for second in seconds]
    running = page([(0, "vllm:num_requests_running", 1)])
    directory = made(tmp_path, page([(second, "up", 1) for second in seconds]), running, page(told_late))
    run = read.load(directory)
    found = together.chart(run, phases.find(run), (), ENGLISH)
    (line,) = [trace for trace in found["data"] if trace["name"] == "server's counter"]
    rates = [rate for rate in line["y"] if rate is not None]
    assert rates == pytest.approx([55] * len(rates), rel=0.01)
