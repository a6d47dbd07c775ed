#if (defined(__clang__) && __clang_major__ >= 21) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 15)
#pragma GCC diagnostic ignored "-Wunterminated-string-initialization"
#endif
static const union {
    char rows[@LITERALS@][@LITERAL@];
    double aligned;
} blob = {{
@ROWS_OF_BLOB@
}};

static const unsigned char *constants(void) { return (const unsigned char *)&blob; }

static int ready(void) { return constants() != NULL; }
