"""Makes page.html, in which `dvc plots show` and `dvc plots diff` draw without a network: Vega's scripts stand in it.

Run from the root of the repository, with npm and a network: python .dvc/plots/build.py

DVC's own page loads them from a server. The page that it makes from this one can be opened anywhere and sent to others.
"""

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent / "page.html"
# Each is a package on npm, by its authors; the hash is of the file that is taken from it. Of the versions that draw the
# templates' Vega-Lite 5 the newest: DVC's own page has some of 2021, with holes that were closed since.
SCRIPTS = {
    "vega@5.33.1": "463f3db6a40b20e9747b4ed38f37ed0add508838f9141b1cf8366784b07b30c8",
    "vega-lite@5.23.0": "58c27358e26f2d319cf62f45bc17a4c8362f08645001df2ec8d341eee4097c7f",
    "vega-embed@6.29.0": "12d02acfbe3ec59ef9a37dd4822a2e04e2961b5bbb671bbe661d2221715b99da",
}

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; \
style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<title>Plots</title>
{refresh_tag}
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 24px; }
body > div { margin-bottom: 40px; overflow-x: auto; }
.vega-embed { vertical-align: top; }
table { border-spacing: 15px; }
</style>
"""
NOTE = """<!--
Made by build.py. Vega, Vega-Lite and Vega-Embed are by the University of Washington Interactive Data Lab, all under
the BSD-3-Clause licence that stands before the second. In Vega is D3, Copyright Mike Bostock, under the ISC licence.
-->
"""
# Without the entry of its menu that would hand the data to the authors' editor on the web.
TAIL = """<script>
{
  const embed = vegaEmbed, actions = { export: true, source: false, compiled: false, editor: false };
  vegaEmbed = (place, spec) => embed(place, spec, { actions });
}
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def fetch(package: str, sha256: str) -> tuple[str, str]:
    """Return the script of a package, `name@version`, and its licence, or none where the package leaves that out.

    Raises:
        SystemExit: the script is not the one with that hash.
    """
    name = package.partition("@")[0]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            script = packed.extractfile(f"package/build/{name}.min.js").read()
            has_licence = "package/LICENSE" in packed.getnames()
            licence = packed.extractfile("package/LICENSE").read().decode() if has_licence else ""
    if (found := hashlib.sha256(script).hexdigest()) != sha256:
        raise SystemExit(f"{package}: build/{name}.min.js has the hash {found}, want {sha256}")
    return script.decode(), licence


def main() -> None:
    parts = [HEAD, NOTE]
    for package, sha256 in SCRIPTS.items():
        script, licence = fetch(package, sha256)
        parts.append(f"<!-- {package}\n{licence}-->\n<script>{script}</script>\n")
    PAGE.write_text("".join([*parts, TAIL]), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
