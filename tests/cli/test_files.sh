#!/bin/bash
# What a file is, not how it is called, decides; what is no image or model is called by its name.
. "$(dirname "$0")/cases.sh"

images=$root/tests/data/images

# ---- every format that is read here
"$fastvlm" doctor >"$work/doctor" 2>/dev/null
for pair in GIF:accept/gif_offset.gif BMP:accept/bmp_rle8.bmp TIFF:accept/tiff_tiles.tif HEIC:accept/heic_grid.heic \
    AVIF:accept/avif_420.avif WebP:accept/webp_animated.webp; do
    format=${pair%%:*} file=$images/${pair#*:}
    if grep -q "^images .*$format" "$work/doctor"; then
        run run "$base" "$file" -n 2
        expect "$format" 0 "first token"
        cp "$file" "$work/noname"
        run run "$base" "$work/noname" -n 2
        expect "$format without an ending" 0 "first token"
    else
        run run "$base" "$file" -n 2
        expect "$format without its library" 1 "$format"
    fi
done

# ---- no images: NAME, the file's bytes (for printf), part of the message
while IFS='|' read -r name bytes says more; do
    printf "$bytes" >"$work/$name"
    run run "$base" "$work/$name"
    expect "$name" 1 "$work/$name: " "$says" ${more:+"$more"}
done <<'END'
lfs.png|version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n|a Git LFS pointer|git lfs pull
lfs|version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n|a Git LFS pointer|git lfs pull
page.jpg|<!DOCTYPE html><html><body>404</body></html>|an HTML page|download again
drawing|<?xml version="1.0"?><svg width="1"></svg>|an SVG drawing|convert it
photo.cr3|\0\0\0\x18ftypcrx \0\0\0\1crx isom|a Canon raw file (CR3)|export it as JPEG
photo.nef|MM\0*\0\0\0\x08\0\0|a camera's raw file|export it as JPEG
film.mov|\0\0\0\x14ftypqt  \0\0\0\0qt  |a video (QuickTime)|save a frame
film|\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm|a video (WebM)|save a frame
photo.jxl|\xff\x0a\xfa\1|a JPEG XL image|convert it
paper|%%PDF-1.7\n|a PDF|convert it
photo.zip|PK\3\4\x14\0\0\0\0\0photo.jpg|a zip archive|unpack it
model.onnx|\x08\x08\x12\7pytorch\x1a\5|an ONNX model|
base64.jpg|/9j/4AAQSkZJRgABAQAAAQABAAD|a JPEG in base64|decode it
digits.jpg|%0100d|text that starts with|
sequence.heic|\0\0\0\x18ftyphevc\0\0\0\0msf1hevc|HEIC|
END
ln -s nowhere/blob "$work/link.jpg"
run run "$base" "$work/link.jpg"
expect "dangling link as image" 1 "link.jpg: is a dangling link: nowhere/blob does not exist"

# ---- no models
mkdir "$work/lone"
cp "$base/model.safetensors" "$work/lone/weights.safetensors"
run info "$work/lone/weights.safetensors"
expect "weights alone" 1 "one file of a checkpoint; expected the directory that contains it"
run info -m "$base/config.json"
expect "a configuration alone" 1 "this is JSON, one file of a checkpoint"
ln -s nowhere/blob "$work/link.gguf"
run info "$work/link.gguf"
expect "dangling link as model" 1 "is a dangling link: nowhere/blob does not exist"
checkpoint() { rm -rf "$work/m"; cp -r "$base" "$work/m"; chmod -R u+w "$work/m"; rm -f "$work/m/tokenizer.json"; }
while IFS='|' read -r name bytes says more; do
    checkpoint
    printf "$bytes" >"$work/m/$name"
    run info "$work/m"
    expect "$name: $says" 1 "$name: this is $says" ${more:+"$more"}
done <<'END'
config.json|version https://git-lfs.github.com/spec/v1\n|a Git LFS pointer|git lfs pull
config.json|\xef\xbb\xbf{}|text that begins with a byte order mark|without the mark
config.json|\xff\xfe{\0}\0|text in UTF-16|save it as UTF-8
config.json|\x1f\x8b\x08\0|compressed with gzip|unpack it
config.json|<html></html>|an HTML page|download again
model.safetensors|version https://git-lfs.github.com/spec/v1\n|a Git LFS pointer|git lfs pull
model.safetensors|Entry not found|text that starts with "Entry not found"|
model.safetensors|PK\3\4\x14\0\0\0\0\0archive/data.pkl|a PyTorch checkpoint (zip)|convert
model.safetensors|\x80\2}q\1(X\1\0\0\0a|a Python pickle|
model.safetensors|GGUF\3\0\0\0|a GGUF file|
vocab.json|version https://git-lfs.github.com/spec/v1\n|a Git LFS pointer|git lfs pull
merges.txt|<html></html>|an HTML page|
END
finish
