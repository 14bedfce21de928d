package io.qnbd.protocol;

/** One answer to an option. All but {@link ExportChosen} name the option that they answer. */
public sealed interface OptionReply {

  record Ack(int option) implements OptionReply {}

  /** One export of a list. */
  record Server(int option, String name, String description) implements OptionReply {}

  /**
   * Size and flags of the export.
   *
   * @param transmissionFlags those of this connection, SEND_DF included where it applies
   */
  record InfoExport(int option, long bytes, int transmissionFlags) implements OptionReply {}

  record InfoName(int option, String name) implements OptionReply {}

  record InfoDescription(int option, String description) implements OptionReply {}

  record InfoBlockSize(int option, BlockSizes sizes) implements OptionReply {}

  /**
   * One metadata context.
   *
   * @param id 0 in a list
   */
  record MetaContext(int option, int id, String name) implements OptionReply {}

  record Refused(int option, OptionError error, String text) implements OptionReply {}

  /**
   * The answer to EXPORT_NAME, which has a layout of its own.
   *
   * @param padded whether 124 zero bytes follow, as they must without NO_ZEROES
   */
  record ExportChosen(long bytes, int transmissionFlags, boolean padded) implements OptionReply {}
}
