package io.qnbd.it.conformance;

/** The protocol's numbers, as its text gives them ("Values" and the extended headers extension). */
final class Nbd {
  static final long GREETING_MAGIC = 0x4e42444d41474943L;
  static final long OPTION_MAGIC = 0x49484156454f5054L;
  static final long OPTION_REPLY_MAGIC = 0x3e889045565a9L;
  static final int REQUEST_MAGIC = 0x25609513;
  static final int EXTENDED_REQUEST_MAGIC = 0x21e41c71;
  static final int SIMPLE_REPLY_MAGIC = 0x67446698;
  static final int CHUNK_MAGIC = 0x668e33ef;
  static final int EXTENDED_CHUNK_MAGIC = 0x6e8a278c;

  static final int FIXED_NEWSTYLE = 1;
  static final int NO_ZEROES = 1 << 1;

  static final int OPT_EXPORT_NAME = 1;
  static final int OPT_ABORT = 2;
  static final int OPT_LIST = 3;
  static final int OPT_PEEK_EXPORT = 4;
  static final int OPT_STARTTLS = 5;
  static final int OPT_INFO = 6;
  static final int OPT_GO = 7;
  static final int OPT_STRUCTURED_REPLY = 8;
  static final int OPT_LIST_META_CONTEXT = 9;
  static final int OPT_SET_META_CONTEXT = 10;
  static final int OPT_EXTENDED_HEADERS = 11;

  /** Far from every number that the protocol gives out. */
  static final int OPT_NOBODY_KNOWS = 0x6e6f6e65;

  static final int REP_ACK = 1;
  static final int REP_SERVER = 2;
  static final int REP_INFO = 3;
  static final int REP_META_CONTEXT = 4;
  static final int ERR_UNSUP = 0x80000001;
  static final int ERR_POLICY = 0x80000002;
  static final int ERR_INVALID = 0x80000003;
  static final int ERR_PLATFORM = 0x80000004;
  static final int ERR_TLS_REQD = 0x80000005;
  static final int ERR_UNKNOWN = 0x80000006;
  static final int ERR_SHUTDOWN = 0x80000007;
  static final int ERR_BLOCK_SIZE_REQD = 0x80000008;
  static final int ERR_TOO_BIG = 0x80000009;
  static final int ERR_EXT_HEADER_REQD = 0x8000000a;

  static final int INFO_EXPORT = 0;
  static final int INFO_NAME = 1;
  static final int INFO_DESCRIPTION = 2;
  static final int INFO_BLOCK_SIZE = 3;

  static final int HAS_FLAGS = 1;
  static final int READ_ONLY = 1 << 1;
  static final int SEND_FLUSH = 1 << 2;
  static final int SEND_FUA = 1 << 3;
  static final int SEND_TRIM = 1 << 5;
  static final int SEND_WRITE_ZEROES = 1 << 6;
  static final int SEND_DF = 1 << 7;
  static final int CAN_MULTI_CONN = 1 << 8;
  static final int SEND_RESIZE = 1 << 9;
  static final int SEND_CACHE = 1 << 10;
  static final int SEND_FAST_ZERO = 1 << 11;
  static final int BLOCK_STATUS_PAYLOAD = 1 << 12;
  static final int UNDEFINED_FLAGS = 0xe000;

  static final int READ = 0;
  static final int WRITE = 1;
  static final int DISC = 2;
  static final int FLUSH = 3;
  static final int TRIM = 4;
  static final int CACHE = 5;
  static final int WRITE_ZEROES = 6;
  static final int BLOCK_STATUS = 7;
  static final int RESIZE = 8;

  static final int FUA = 1;
  static final int NO_HOLE = 1 << 1;
  static final int DF = 1 << 2;
  static final int REQ_ONE = 1 << 3;
  static final int FAST_ZERO = 1 << 4;
  static final int PAYLOAD_LEN = 1 << 5;

  static final int EPERM = 1;
  static final int EIO = 5;
  static final int EINVAL = 22;
  static final int ENOSPC = 28;
  static final int EOVERFLOW = 75;
  static final int ENOTSUP = 95;
  static final int ESHUTDOWN = 108;

  static final int CHUNK_DONE = 1;
  static final int CHUNK_NONE = 0;
  static final int CHUNK_DATA = 1;
  static final int CHUNK_HOLE = 2;
  static final int CHUNK_STATUS = 5;
  static final int CHUNK_STATUS_EXT = 6;
  static final int CHUNK_ERROR = 0x8001;
  static final int CHUNK_ERROR_OFFSET = 0x8002;

  static final int STATE_HOLE = 1;
  static final int STATE_ZERO = 1 << 1;

  static final String ALLOCATION = "base:allocation";
  static final String DEPTH = "qemu:allocation-depth";
  static final String DIRTY = "qemu:dirty-bitmap:";

  /** No string is longer, names and messages alike. */
  static final int STRING_BYTES_MAX = 4096;

  /** What a server without a word about sizes should take at least, and does not call an attack. */
  static final int PAYLOAD_BYTES_DEFAULT = 32 << 20;

  private Nbd() {}

  /** The name of a command, for messages and for the names of cases. */
  static String command(int type) {
    return switch (type) {
      case READ -> "READ";
      case WRITE -> "WRITE";
      case DISC -> "DISC";
      case FLUSH -> "FLUSH";
      case TRIM -> "TRIM";
      case CACHE -> "CACHE";
      case WRITE_ZEROES -> "WRITE_ZEROES";
      case BLOCK_STATUS -> "BLOCK_STATUS";
      default -> "command " + type;
    };
  }

  /** The name of an option, for messages and for the names of cases. */
  static String option(int option) {
    return switch (option) {
      case OPT_EXPORT_NAME -> "EXPORT_NAME";
      case OPT_ABORT -> "ABORT";
      case OPT_LIST -> "LIST";
      case OPT_PEEK_EXPORT -> "PEEK_EXPORT";
      case OPT_STARTTLS -> "STARTTLS";
      case OPT_INFO -> "INFO";
      case OPT_GO -> "GO";
      case OPT_STRUCTURED_REPLY -> "STRUCTURED_REPLY";
      case OPT_LIST_META_CONTEXT -> "LIST_META_CONTEXT";
      case OPT_SET_META_CONTEXT -> "SET_META_CONTEXT";
      case OPT_EXTENDED_HEADERS -> "EXTENDED_HEADERS";
      default -> "option 0x%x".formatted(option);
    };
  }
}
