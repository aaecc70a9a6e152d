/* docs/openapi.json, put into the program as it is; see cli/demo_model.S. */
#ifdef __APPLE__
#define NAME(x) _##x
    .section __TEXT,__const
#else
#define NAME(x) x
    .section .rodata.serve_openapi, "a"
    .hidden NAME(serve_openapi_begin)
    .hidden NAME(serve_openapi_end)
#endif
    .globl NAME(serve_openapi_begin)
    .globl NAME(serve_openapi_end)
NAME(serve_openapi_begin):
    .incbin FASTVLM_OPENAPI_FILE
NAME(serve_openapi_end):
    .byte 0
#ifdef __ELF__
    .section .note.GNU-stack, "", %progbits
#endif
