/* input_ids [1, seq_len] -> rows of the embedding [1, seq_len, d_model], as a graph. */
#include "graph/graph.h"

void fv_graph_embed(fv_graph *g, const fv_config *c, const fv_decoder_weights *w,
                    const fv_graph_spec *s)
{
    fv_dim dims[] = { s->free_batch ? FV_FREE("batch_size") : FV_DIM(1),
                      s->free_batch ? FV_FREE("sequence_length") : FV_DIM(s->seq_len) };
    /* "<image>" is looked up before image tokens take its place, and may lie past the table */
    int last_id = s->image_token >= c->n_vocab ? c->n_vocab - 1 : 0;
    fv_value *ids = fv_graph_input(g, "input_ids", FV_TYPE_I64, FV_FORM_OTHER, dims, 2);
    fv_value *x = fv_graph_gather(g, ids, s->real, "embed_tokens", &w->embed, last_id);
    fv_graph_output(g, fv_graph_cast(g, x, s->io), "inputs_embeds");
}
