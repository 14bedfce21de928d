package io.qnbd.protocol.handshake;

import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.InfoType;
import io.qnbd.protocol.OptionError;
import io.qnbd.protocol.OptionReply;
import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import io.qnbd.protocol.TransmissionFlags;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import io.qnbd.protocol.handshake.Step.Next;
import io.qnbd.protocol.handshake.Step.Next.Closing;
import io.qnbd.protocol.handshake.Step.Next.Negotiating;
import io.qnbd.protocol.handshake.Step.Next.Transmitting;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * The server's side of fixed newstyle negotiation (NBD protocol, "Newstyle negotiation"), without
 * TLS.
 *
 * <pre>
 *   FLAGS --clientFlags--> OPTIONS --option: EXPORT_NAME, GO--> TRANSMITTING
 *     |                    |    ^ |
 *     | unknown bits       |    +-+ option: any other, answered
 *     v                    v ABORT; too many; what cannot be answered
 *   CLOSED <---------------+
 * </pre>
 *
 * <p>In OPTIONS, {@code structuredReplies} holds what was agreed so far. CLOSED and TRANSMITTING
 * take no further message.
 *
 * <p>Owner: the connection's event loop. Never blocks.
 */
public final class Handshake {
  /** What the greeting offers: bit 0 fixed newstyle, bit 1 no zero padding. */
  public static final int FLAGS_OFFERED = 3;

  private static final int FLAG_FIXED_NEWSTYLE = 1;
  private static final int FLAG_NO_ZEROES = 2;
  private static final Next NEGOTIATING = new Negotiating();

  private enum State {
    FLAGS,
    OPTIONS,
    CLOSED,
    TRANSMITTING
  }

  private final ExportCatalog catalog;
  private State state = State.FLAGS;
  private int clientFlags;
  private int optionCount;
  private boolean structuredReplies;

  public Handshake(ExportCatalog catalog) {
    this.catalog = catalog;
  }

  /** Takes the client's flags, its first message. */
  public Step clientFlags(int flags) {
    expect(State.FLAGS);
    if ((flags & ~FLAGS_OFFERED) != 0) {
      return closing("client flags are 0x%x, of which only 0x3 were offered".formatted(flags));
    }
    clientFlags = flags;
    state = State.OPTIONS;
    return new Step(List.of(), NEGOTIATING);
  }

  /** Takes one option. */
  public Step option(OptionRequest request) {
    expect(State.OPTIONS);
    optionCount++;
    if (optionCount > WireLimits.OPTIONS_MAX) {
      return closing("more than " + WireLimits.OPTIONS_MAX + " options");
    }
    if ((clientFlags & FLAG_FIXED_NEWSTYLE) == 0 && request.option() != OptionType.EXPORT_NAME) {
      return closing("option " + request.option() + " from a client without fixed newstyle");
    }
    return switch (request) {
      case OptionRequest.ExportName chosen -> exportName(chosen);
      case OptionRequest.Abort _ -> {
        state = State.CLOSED;
        yield new Step(
            List.of(new OptionReply.Ack(OptionType.ABORT)), new Closing("the client aborted"));
      }
      case OptionRequest.ListExports _ -> list();
      case OptionRequest.Details info -> details(info);
      case OptionRequest.StructuredReplies _ -> {
        structuredReplies = true;
        yield answer(new OptionReply.Ack(OptionType.STRUCTURED_REPLY));
      }
      case OptionRequest.Unknown(int option) ->
          refuse(option, OptionError.UNSUPPORTED, "option " + option + " is not supported");
      case OptionRequest.Invalid(int option, String reason) -> {
        if (option == OptionType.EXPORT_NAME) {
          yield closing(reason);
        }
        yield refuse(option, OptionError.INVALID, reason);
      }
      case OptionRequest.TooBig(int option, long bytes) -> {
        if (option == OptionType.EXPORT_NAME) {
          yield closing("export name of " + bytes + " bytes");
        }
        yield refuse(
            option,
            OptionError.TOO_BIG,
            "%d bytes of option data, at most %d are read"
                .formatted(bytes, WireLimits.OPTION_BYTES_MAX));
      }
    };
  }

  private Step exportName(OptionRequest.ExportName chosen) {
    Optional<ExportInfo> found = catalog.find(chosen.name());
    if (found.isEmpty()) {
      // EXPORT_NAME has no way to say no.
      return closing("no export is named " + WireStrings.quote(chosen.name()));
    }
    ExportInfo export = found.get();
    boolean padded = (clientFlags & FLAG_NO_ZEROES) == 0;
    state = State.TRANSMITTING;
    return new Step(
        List.of(new OptionReply.ExportChosen(export.bytes(), flagsOf(export), padded)),
        new Transmitting(new Negotiated(export, structuredReplies)));
  }

  private Step list() {
    List<OptionReply> replies = new ArrayList<>();
    for (ExportInfo export : catalog.list()) {
      replies.add(new OptionReply.Server(OptionType.LIST, export.name(), export.description()));
    }
    replies.add(new OptionReply.Ack(OptionType.LIST));
    return new Step(replies, NEGOTIATING);
  }

  private Step details(OptionRequest.Details info) {
    int option = info.option();
    Optional<ExportInfo> found = catalog.find(info.name());
    if (found.isEmpty()) {
      String text =
          info.name().isEmpty()
              ? "there is no default export; name one"
              : "no export is named " + WireStrings.quote(info.name());
      return refuse(option, OptionError.UNKNOWN_EXPORT, text);
    }
    ExportInfo export = found.get();
    Set<Integer> wanted = info.wanted();
    List<OptionReply> replies = new ArrayList<>();
    replies.add(new OptionReply.InfoExport(option, export.bytes(), flagsOf(export)));
    if (wanted.contains(InfoType.NAME)) {
      replies.add(new OptionReply.InfoName(option, export.name()));
    }
    if (wanted.contains(InfoType.DESCRIPTION) && !export.description().isEmpty()) {
      replies.add(new OptionReply.InfoDescription(option, export.description()));
    }
    if (wanted.contains(InfoType.BLOCK_SIZE)) {
      BlockSizes sizes = export.blockSizes();
      replies.add(new OptionReply.InfoBlockSize(option, sizes));
    }
    replies.add(new OptionReply.Ack(option));
    if (!info.go()) {
      return new Step(replies, NEGOTIATING);
    }
    state = State.TRANSMITTING;
    return new Step(replies, new Transmitting(new Negotiated(export, structuredReplies)));
  }

  private int flagsOf(ExportInfo export) {
    return export.transmissionFlags() | (structuredReplies ? TransmissionFlags.SEND_DF : 0);
  }

  private static Step answer(OptionReply reply) {
    return new Step(List.of(reply), NEGOTIATING);
  }

  private static Step refuse(int option, OptionError error, String text) {
    return answer(new OptionReply.Refused(option, error, text));
  }

  private Step closing(String reason) {
    state = State.CLOSED;
    return new Step(List.of(), new Closing(reason));
  }

  private void expect(State expected) {
    if (state != expected) {
      throw new AssertionError("handshake is in state " + state + ", expected " + expected);
    }
  }
}
