"""What is read of an engine's prefix cache, over real HTTP and in the form of Ray's metrics."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clinical_reasoner.benchmarks.scraping import PrefixCache

METRICS = """# HELP ray_vllm_prefix_cache_queries_total Tokens.
ray_vllm_prefix_cache_queries_total{engine="0",replica="a"} 100.0
ray_vllm_prefix_cache_hits_total{engine="0",replica="a"} 50.0
ray_vllm_prefix_cache_queries_total{engine="0",replica="b"} 300.0
ray_vllm_prefix_cache_hits_total{engine="0",replica="b"} 250.0
ray_vllm_prefix_cache_hits_created{engine="0",replica="b"} 9e9
ray_vllm_external_prefix_cache_hits_total{engine="0",replica="b"} 7.0
"""


def test_rate_is_that_of_all_engines_together() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    cache = PrefixCache()
    assert cache.hit_rate() is None
    for _ in range(2):
        cache.read(f"http://127.0.0.1:{http.server_port}/metrics")
    http.shutdown()
    assert cache.hit_rate() == 0.75
    cache.read("http://127.0.0.1:9/metrics")
    assert cache.hit_rate() == 0.75, "what was seen stays"
