# cmake -DHEADER=onnx.pb-c.h -P onnx_prefix.cmake: gives every function and descriptor that protoc-c
# names onnx__... the prefix of this library, so that a program with messages of its own made from the
# same onnx.proto can link libfastvlm_tools.a. The names in C stay; macros at the head of the header
# rename what the linker sees.
file(READ ${HEADER} text)
string(REGEX MATCHALL "onnx__[a-z0-9_]+" names "${text}")
list(REMOVE_DUPLICATES names)
list(SORT names)
set(macros "")
foreach(name IN LISTS names)
    string(APPEND macros "#define ${name} fv_${name}\n")
endforeach()
file(WRITE ${HEADER} "${macros}\n${text}")
