/* The bytes of the demonstration model (models/demo/demo.gguf, made by make demo-model), put into the
 * program as they are. An assembler file, because every compiler of this project and every link, with
 * or without LTO, takes it the same way. 64: what fv_engine_open_memory asks for. */
#ifdef __APPLE__
#define NAME(x) _##x
    .section __TEXT,__const
#else
#define NAME(x) x
    .section .rodata.demo_model, "a"
    .hidden NAME(demo_model_begin)
    .hidden NAME(demo_model_end)
#endif
    .globl NAME(demo_model_begin)
    .globl NAME(demo_model_end)
    .balign 64
NAME(demo_model_begin):
    .incbin FASTVLM_DEMO_FILE
NAME(demo_model_end):
    .byte 0
#ifdef __ELF__
    .section .note.GNU-stack, "", %progbits
#endif
