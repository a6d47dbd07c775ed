static const unsigned char *given;

static const unsigned char *constants(void) { return given; }

static int ready(void) { return constants() != NULL; }

static uint32_t checksum(const unsigned char *p, size_t count) {
    uint32_t table[16], sum = 0xffffffffu;
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int bit = 0; bit < 4; bit++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    for (size_t i = 0; i < count; i++) {
        sum = table[(sum ^ p[i]) & 15] ^ sum >> 4;
        sum = table[(sum ^ (uint32_t)p[i] >> 4) & 15] ^ sum >> 4;
    }
    return sum ^ 0xffffffffu;
}

int @NAME@_set_blob(const void *data, size_t size) {
    const unsigned char *head = (const unsigned char *)data;
    uint32_t words[3];
    if (data == NULL || (uintptr_t)data % sizeof(float) != 0) return @UPPER@_BAD_ARGUMENT;
    if (size != (size_t)@BLOB@ + 64 || memcmp(head, "GOSSAMER", 8) != 0) return @UPPER@_BAD_BLOB;
    for (size_t i = 8 + sizeof words; i < 64; i++)
        if (head[i] != 0) return @UPPER@_BAD_BLOB;
    memcpy(words, head + 8, sizeof words);
    if (words[0] != @VERSION@ || words[1] != @BLOB@u || words[2] != @CHECKSUM@u) return @UPPER@_BAD_BLOB;
    if (checksum(head + 64, size - 64) != words[2]) return @UPPER@_BAD_BLOB;
    given = head + 64;
    return @UPPER@_OK;
}
