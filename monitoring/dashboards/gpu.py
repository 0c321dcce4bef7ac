"""The GPUs of the gateways, as NVML sees them."""

from __future__ import annotations

from monitoring.panels import WHERE, Dashboard, Panel, Query, here, rate

_EACH = "{{instance}} GPU {{gpu}}"

GPU = Dashboard(
    uid="atelier-gpu",
    title="Atelier / GPU",
    description="The GPUs of the gateways, as NVML sees them.",
    variables=WHERE,
    rows={
        "Health": [
            Panel(
                title="GPUs that answer",
                description="A lost GPU, or a driver that hangs, is missing here.",
                queries=[Query(expr=f"sum({here('atelier_gpu_up')})")],
                kind="figure",
                width=4,
            ),
            Panel(
                title="GPUs lost",
                description="Known, but without an answer.",
                queries=[Query(expr=f"count({here('atelier_gpu_up')}) - sum({here('atelier_gpu_up')})")],
                kind="figure",
                width=4,
                good=(0.5, 1),
            ),
            Panel(
                title="Critical errors",
                description="By Xid, since the gateway started. NVIDIA's list says which call for a new GPU.",
                queries=[
                    Query(
                        expr=f"sum by (instance, gpu, xid) ({here('atelier_gpu_xid_errors_total')})",
                        legend="{{instance}} GPU {{gpu}} Xid {{xid}}",
                    )
                ],
                kind="table",
            ),
            Panel(
                title="Memory errors",
                description="Since the driver was loaded.",
                queries=[
                    Query(expr=here("atelier_gpu_ecc_errors_total"), legend=_EACH + " {{kind}}"),
                ],
                width=8,
            ),
        ],
        "Use": [
            Panel(
                title="Utilisation",
                description="Share of the time in which something computed: 100% is busy, not full.",
                queries=[Query(expr=here("atelier_gpu_utilization_ratio"), legend=_EACH)],
                unit="percentunit",
                most=1,
            ),
            Panel(
                title="Memory",
                description="In use.",
                queries=[
                    Query(expr=here("atelier_gpu_memory_used_bytes"), legend=_EACH),
                    Query(expr=f"max({here('atelier_gpu_memory_total_bytes')})", legend="there is"),
                ],
                unit="bytes",
            ),
            Panel(
                title="Memory bandwidth",
                description="Share of the time in which memory was read or written.",
                queries=[Query(expr=here("atelier_gpu_memory_utilization_ratio"), legend=_EACH)],
                unit="percentunit",
                most=1,
            ),
            Panel(
                title="Rows for a joule",
                description="What the energy buys: rows of all graphs, by gateway.",
                queries=[
                    Query(
                        expr=f"sum by (instance) ({rate('atelier_rows_total')})\n"
                        f"/ (sum by (instance) ({rate('atelier_gpu_energy_joules_total')}) > 0)",
                        legend="{{instance}}",
                    )
                ],
            ),
            Panel(
                title="Clocks",
                description="Of the multiprocessors and of the memory.",
                queries=[Query(expr=here("atelier_gpu_clock_hertz"), legend=_EACH + " {{clock}}")],
                unit="hertz",
            ),
            Panel(
                title="Held back",
                description="1 while the clocks are held down, by reason.",
                queries=[
                    Query(
                        expr=here("atelier_gpu_throttled"),
                        legend=_EACH + " {{reason}}",
                    )
                ],
                most=1,
            ),
        ],
        "Power and heat": [
            Panel(
                title="Power",
                description="Drawn now, and what may be drawn.",
                queries=[
                    Query(expr=here("atelier_gpu_power_watts"), legend=_EACH),
                    Query(expr=f"max({here('atelier_gpu_power_limit_watts')})", legend="limit"),
                ],
                unit="watt",
            ),
            Panel(
                title="Energy",
                description="The mean by the counter of energy, which misses no peak between readings.",
                queries=[Query(expr=rate("atelier_gpu_energy_joules_total"), legend=_EACH)],
                unit="watt",
            ),
            Panel(
                title="Temperature",
                description="Of the chip.",
                queries=[Query(expr=here("atelier_gpu_temperature_celsius"), legend=_EACH)],
                unit="celsius",
            ),
        ],
    },
)
