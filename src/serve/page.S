/* The page's files, put into the program as they are; see cli/demo_model.S. */
#ifdef __APPLE__
#define NAME(x) _##x
#define HIDDEN(x)
    .section __TEXT,__const
#else
#define NAME(x) x
#define HIDDEN(x) .hidden x
    .section .rodata.serve_page, "a"
#endif

#define BYTES(name, end, file) \
    HIDDEN(NAME(name)); HIDDEN(NAME(end)); .globl NAME(name); .globl NAME(end); \
    NAME(name): .incbin file; NAME(end): .byte 0

BYTES(serve_page_html, serve_page_html_end, FASTVLM_PAGE_HTML)
BYTES(serve_page_css, serve_page_css_end, FASTVLM_PAGE_CSS)
BYTES(serve_page_js, serve_page_js_end, FASTVLM_PAGE_JS)
#ifdef __ELF__
    .section .note.GNU-stack, "", %progbits
#endif
