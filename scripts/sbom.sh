#!/usr/bin/env bash
# What each package of the workspace is made of, as CycloneDX JSON in target/sbom: all crates that are built for
# this machine's platform, or for the one named in SBOM_TARGET, with versions, licences and checksums.
set -euo pipefail
cd "$(dirname "$0")/.."

cyclonedx=$(scripts/tool.sh cargo-cyclonedx 0.5.9)
target=${SBOM_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
out=target/sbom
name=sbom-of-this-workspace
# The tool writes beside each Cargo.toml, and nowhere else.
trap 'find . -path ./target -prune -o -name "$name.json" -exec rm -f {} +' EXIT
"$cyclonedx" cyclonedx --format json --spec-version 1.5 --target "$target" --override-filename "$name"
rm -rf "$out"
mkdir -p "$out"
for file in "$name.json" */"$name.json"; do
	[ -e "$file" ] || continue
	package=$(sed -n 's/^name = "\(.*\)"/\1/p' "$(dirname "$file")/Cargo.toml" | head -1)
	mv "$file" "$out/$package.cdx.json"
	echo "$out/$package.cdx.json"
done
