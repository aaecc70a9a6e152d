/* Asks a question about an image and prints the answer as it comes.
 *
 *     cc describe.c $(pkg-config --cflags --libs fastvlm) -o describe
 *     ./describe checkpoint photo.jpg "What is in the image?" */
#include <stdio.h>
#include <string.h>

#include <fastvlm.h>

int main(int argc, char **argv)
{
    fv_engine *engine = NULL;
    fv_session *session = NULL;
    fv_image *image = NULL;
    fv_piece piece = { .size = sizeof piece };
    fv_error err;

    if (argc < 3) {
        fprintf(stderr, "usage: %s CHECKPOINT IMAGE [QUESTION]\n", argv[0]);
        return 2;
    }
    const char *question = argc > 3 ? argv[3] : "Describe the image.";
    fv_status status = fv_engine_open(&engine, argv[1], NULL, &err);
    if (status == FV_OK)
        status = fv_session_new(&session, engine, NULL, &err);
    if (status == FV_OK)
        status = fv_image_open(&image, argv[2], NULL, &err);
    if (status == FV_OK)
        status = fv_session_add_image(session, image, NULL, &err);
    if (status == FV_OK)
        status = fv_session_add_text(session, question, strlen(question), &err);
    while (status == FV_OK && !piece.done) {
        status = fv_session_next(session, &piece, &err);
        if (status == FV_OK)
            fwrite(piece.text, 1, piece.n_bytes, stdout);
        fflush(stdout);
    }
    putchar('\n');
    if (status != FV_OK)
        fprintf(stderr, "%s: %s\n", fv_status_name(status), err.message);
    fv_image_free(image);
    fv_session_free(session);
    fv_engine_free(engine);
    return status != FV_OK;
}
