#!/bin/bash
# copy-dirty.sh URI BITMAP COPY: copies what BITMAP says is dirty from an NBD export into COPY, a
# raw image of the export as it was before. Needs nbdinfo and nbdcopy (libnbd), nbdkit and dd.
set -euo pipefail
uri=$1 bitmap=$2 copy=$3

size=$(nbdinfo --size "$uri")
truncate -s "$size" "$copy" # the disk may have grown; what was added reads as zeroes

map=$(nbdinfo --map="qemu:dirty-bitmap:$bitmap" "$uri")
echo "$map" | while read -r at bytes dirty _; do
  [ "$dirty" = 1 ] || continue
  nbdcopy -- [ nbdkit --exit-with-parent --filter=offset nbd uri="$uri" offset="$at" range="$bytes" ] - \
    </dev/null | dd of="$copy" bs=1M iflag=fullblock oflag=seek_bytes seek="$at" conv=notrunc status=none
done
