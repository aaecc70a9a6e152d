/* Bytes that are not UTF-8, and what Python 3.11's bytes.decode("utf-8", "replace") makes of them.
 * */
#ifndef FV_TESTS_NOT_TEXT_H
#define FV_TESTS_NOT_TEXT_H

static const struct not_text {
    const char *bytes, *text;
} not_text[] = {
    { "mod\377\351l", "mod\357\277\275\357\277\275l" },
    { "plain", "plain" },
    { "caf\303\251", "caf\303\251" },
    { "\355\240\200", "\357\277\275\357\277\275\357\277\275" },
    { "\360\237\230", "\357\277\275" },
    { "a\303(", "a\357\277\275(" },
    { "\300\257", "\357\277\275\357\277\275" },
    { "\364\220\200\200", "\357\277\275\357\277\275\357\277\275\357\277\275" },
    { "caf\351", "caf\357\277\275" },
    { "\346\227\245\200z", "\346\227\245\357\277\275z" },
};

#endif
