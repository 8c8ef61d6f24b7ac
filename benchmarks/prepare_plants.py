"""How fast `prepare plants` is, and its memory: a synthetic image of a camera, BIL, uint16.

    python benchmarks/prepare_plants.py [--full] [--folder /tmp]

Writes an image of LINES x 1600 pixels x 500 bands with white and dark references into a folder of
its own, prepares it in a process of its own as a user would, and removes both. `--full` takes 1000
lines, 1.6 GB, instead of a quarter of it. The image is synthetic: noise and discs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np

SAMPLES, BANDS = 1600, 500
LOW_NM, HIGH_NM = 395.0, 905.0

PREPARE = """
    import json, resource, sys, time
    from sciml_dchag.plants.prepare.images import prepare_plants
    folder = sys.argv[1]
    start, cpu = time.perf_counter(), time.process_time()
    prepare_plants([f"{folder}/image.hdr"], f"{folder}/store.zarr", white=f"{folder}/white.hdr",
                   dark=f"{folder}/dark.hdr", progress=None)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cpu = time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}))
"""


def write_envi(folder: Path, name: str, lines: int, kind: str) -> int:
    """Write an image or a reference, a few lines at a time; returns its bytes."""
    rng = np.random.default_rng(0)
    nm = np.linspace(LOW_NM, HIGH_NM, BANDS)
    lamp = 3000 * np.exp(-(((nm - 650) / 250) ** 2))
    column = rng.uniform(0.9, 1.1, SAMPLES)
    dark = 100 + 5 * rng.standard_normal((BANDS, SAMPLES))
    leaf = 0.08 + 0.06 * np.exp(-(((nm - 550) / 40) ** 2)) + 0.4 / (1 + np.exp(-(nm - 715) / 12))
    x = np.arange(SAMPLES)
    noise = rng.integers(0, 8, (BANDS, SAMPLES), dtype=np.uint16)
    with (folder / f"{name}.raw").open("wb") as file:
        for line in range(lines):
            if kind == "image":
                disc = ((x % 400 - 200) ** 2 + (line % 400 - 200) ** 2) < 150**2
                reflectance = np.where(disc, leaf[:, None], 0.1)
            else:
                reflectance = np.float64(kind == "white")
            counts = dark + lamp[:, None] * column * reflectance
            file.write((counts.astype(np.uint16) + np.roll(noise, line, axis=1)).tobytes())
    (folder / f"{name}.hdr").write_text(
        "ENVI\ndescription = { synthetic, benchmarks/prepare_plants.py }\n"
        f"samples = {SAMPLES}\nlines = {lines}\nbands = {BANDS}\nheader offset = 0\n"
        "file type = ENVI Standard\ndata type = 12\ninterleave = bil\nbyte order = 0\n"
        "simulated = 1\nwavelength units = nm\n"
        f"wavelength = {{ {', '.join(f'{w:.3f}' for w in nm)} }}\n"
    )
    return (folder / f"{name}.raw").stat().st_size


def write_speed(folder: Path, bytes_to_write: int) -> float:
    """How fast plain writing of as many bytes is there, bytes a second: what the disk allows."""
    block = np.ones(16 * 2**20, np.uint8)
    start = time.perf_counter()
    with (folder / "plain.bin").open("wb") as file:
        for _ in range(max(1, bytes_to_write // block.nbytes)):
            file.write(block.data)
    seconds = time.perf_counter() - start
    (folder / "plain.bin").unlink()
    return bytes_to_write / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="1000 lines (1.6 GB) instead of 250")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    lines = 1000 if arguments.full else 250
    folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="prepare_plants_"))
    try:
        size = write_envi(folder, "image", lines, "image")
        for name in ("white", "dark"):
            write_envi(folder, name, 50, name)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PREPARE), str(folder)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        figures = json.loads(done.stdout.splitlines()[-1])
        plain = write_speed(folder, 2 * size)
    finally:
        shutil.rmtree(folder)
    print(
        json.dumps(
            {
                "image": f"{lines} x {SAMPLES} x {BANDS} uint16 BIL, synthetic",
                "raw_megabytes": size / 1e6,
                "seconds": round(figures["seconds"], 2),
                "cpu_seconds": round(figures["cpu_seconds"], 2),
                "load_average": os.getloadavg()[0],
                "megabytes_a_second_of_raw": round(size / 1e6 / figures["seconds"], 1),
                "peak_gibibytes": round(figures["peak_bytes"] / 2**30, 2),
                "plain_writing_megabytes_a_second": round(plain / 1e6),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
