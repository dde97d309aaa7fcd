"""The report: the table, and what it was measured with."""

import os
import statistics

from machine import cpu_model, file_system, output

COLUMNS = {
    "submits_per_second": ("submits/s", lambda figure: f"{figure:,.0f}"),
    "batched_per_second": ("in batches, tasks/s", lambda figure: f"{figure:,.0f}"),
    "lives_per_second": ("whole lives/s", lambda figure: f"{figure:,.0f}"),
    "latency_p50_ms": ("idle p50, ms", lambda figure: f"{figure:,.1f}"),
    "latency_p99_ms": ("idle p99, ms", lambda figure: f"{figure:,.1f}"),
    "at_rest": ("at rest, MiB", lambda figure: f"{figure / 2**20:,.0f}"),
    "after": ("after, MiB", lambda figure: f"{figure / 2**20:,.0f}"),
}


def table(systems, rounds):
    lines = ["| | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
             "|---|" + "---:|" * len(COLUMNS)]
    for system in systems:
        cells = [cell([one.get(key) for one in rounds[system.name]], form)
                 for key, (_, form) in COLUMNS.items()]
        lines.append(f"| {system.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(figures, form):
    """The median, and from where to where it went."""
    if not all(figures):
        return "—"
    low, middle, high = (form(of(figures)) for of in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low}–{high})"


def conditions(systems, options, scratch, synced):
    kind, device = file_system(scratch)
    lines = [
        "",
        f"Rounds: {options.rounds}, of which the median (least–most). Payload 200 bytes; {options.clients} "
        f"clients with a connection each; {options.seconds:g} s for each rate of submission; "
        "batches of 1,000 by 4 clients; "
        f"{options.tasks:,} whole lives with {options.workers} workers; latency of "
        f"{options.samples} tasks at 20/s.",
        "",
        f"- Machine: {cpu_model()}, {os.cpu_count()} cores, Linux {os.uname().release}, load "
        f"{os.getloadavg()[0]:.1f} at the end; data on {kind} ({device}), where to write 4 KiB and sync it "
        f"took {synced:.2f} ms (median of 200)",
        f"- Load: {output(['go', 'version'])}, this module",
    ]
    for system in systems:
        lines.append(f"- {system.title}: {system.version()}; {system.settings}")
    return "\n".join(lines)
