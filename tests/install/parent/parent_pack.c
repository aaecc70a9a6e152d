/* Packs a checkpoint and verifies the file: `pack CHECKPOINT FILE`. */
#include <fastvlm_tools.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    fv_error err;
    fv_pack_options options;

    if (argc != 3)
        return 2;
    fv_pack_options_default(&options);
    if (fv_pack(argv[1], argv[2], &options, NULL, &err) != FV_OK ||
        fv_verify(argv[2], NULL, &err) != FV_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s packed with fastvlm %s\n", argv[1], fv_version());
    return 0;
}
