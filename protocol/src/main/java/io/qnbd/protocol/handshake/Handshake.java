package io.qnbd.protocol.handshake;

import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.InfoType;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.OptionError;
import io.qnbd.protocol.OptionReply;
import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.SelectedContext;
import io.qnbd.protocol.TransmissionFlags;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import io.qnbd.protocol.handshake.Step.Next;
import io.qnbd.protocol.handshake.Step.Next.Closing;
import io.qnbd.protocol.handshake.Step.Next.Negotiating;
import io.qnbd.protocol.handshake.Step.Next.StartingTls;
import io.qnbd.protocol.handshake.Step.Next.Transmitting;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * The server's side of fixed newstyle negotiation (NBD protocol, "Newstyle negotiation", "TLS
 * support" and "Metadata querying").
 *
 * <pre>
 *   FLAGS --clientFlags--> OPTIONS --option: EXPORT_NAME, GO--> TRANSMITTING
 *     |                    |    ^ ^
 *     | unknown bits       |    | +--option: any other, answered
 *     |                    |    +--tlsEstablished-- STARTING_TLS <--option: STARTTLS--
 *     v                    v ABORT; too many; what cannot be answered
 *   CLOSED <---------------+
 * </pre>
 *
 * <p>In OPTIONS, {@code replies} and {@code contexts} hold what was agreed so far; both are
 * forgotten when TLS begins, because anyone may have said it. The metadata contexts belong to the
 * export that {@code contextsExport} names, canonically, and count for no other. CLOSED and
 * TRANSMITTING take no further message.
 *
 * <p>Each option passes the same gates before it is looked at: fixed newstyle, the end of the
 * server, required TLS. EXPORT_NAME, which has no answer for errors, closes where others are
 * refused.
 *
 * <p>Owner: the connection's event loop. Never blocks.
 */
public final class Handshake {
  /** What the greeting offers: bit 0 fixed newstyle, bit 1 no zero padding. */
  public static final int FLAGS_OFFERED = 3;

  private static final int FLAG_FIXED_NEWSTYLE = 1;
  private static final int FLAG_NO_ZEROES = 2;
  private static final Next NEGOTIATING = new Negotiating();

  /** Queries of a list that stand for all contexts whose names they begin. */
  private static final Set<String> WILDCARDS = Set.of("base:", "qemu:", "qemu:dirty-bitmap:");

  private enum State {
    FLAGS,
    OPTIONS,
    STARTING_TLS,
    CLOSED,
    TRANSMITTING
  }

  /** Why an option is not done. */
  private record Refusal(OptionError error, String text) {}

  private final ExportCatalog catalog;
  private final TlsMode tls;
  private State state = State.FLAGS;
  private int clientFlags;
  private int optionCount;
  private boolean encrypted;
  private boolean shuttingDown;
  private ReplyMode replies = ReplyMode.SIMPLE;
  private String contextsExport = "";
  private List<SelectedContext> contexts = List.of();
  private int lastContextId;

  /**
   * @param catalog what this client may choose from
   * @param tls stays the same for the whole connection
   */
  public Handshake(ExportCatalog catalog, TlsMode tls) {
    this.catalog = catalog;
    this.tls = tls;
  }

  /** From now on every option but ABORT is refused, because the server shuts down. */
  public void shutDown() {
    shuttingDown = true;
  }

  /** What was announced by {@link StartingTls} has succeeded: negotiation begins anew. */
  public void tlsEstablished() {
    expect(State.STARTING_TLS);
    encrypted = true;
    state = State.OPTIONS;
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
    int option = request.option();
    optionCount++;
    if (optionCount > WireLimits.OPTIONS_MAX) {
      return closing("more than " + WireLimits.OPTIONS_MAX + " options");
    }
    if ((clientFlags & FLAG_FIXED_NEWSTYLE) == 0 && option != OptionType.EXPORT_NAME) {
      return closing("option " + option + " from a client without fixed newstyle");
    }
    if (option == OptionType.SET_META_CONTEXT) {
      // It replaces what was selected, also when it fails.
      forgetContexts();
    }
    if (shuttingDown && option != OptionType.ABORT) {
      return refuse(option, OptionError.SHUTDOWN, "the server shuts down");
    }
    if (tls == TlsMode.REQUIRED
        && !encrypted
        && option != OptionType.STARTTLS
        && option != OptionType.ABORT) {
      return refuse(option, OptionError.TLS_REQUIRED, "TLS is required; send STARTTLS first");
    }
    return answerOf(request);
  }

  private Step answerOf(OptionRequest request) {
    return switch (request) {
      case OptionRequest.ExportName chosen -> exportName(chosen);
      case OptionRequest.Abort _ -> {
        state = State.CLOSED;
        yield new Step(
            List.of(new OptionReply.Ack(OptionType.ABORT)), new Closing("the client aborted"));
      }
      case OptionRequest.ListExports _ -> list();
      case OptionRequest.StartTls _ -> startTls();
      case OptionRequest.Details info -> details(info);
      case OptionRequest.StructuredReplies _ -> structuredReplies();
      case OptionRequest.ExtendedHeaders _ -> {
        replies = ReplyMode.EXTENDED;
        yield answer(new OptionReply.Ack(OptionType.EXTENDED_HEADERS));
      }
      case OptionRequest.MetaContexts query -> metaContexts(query);
      case OptionRequest.Unknown(int option) ->
          refuse(option, OptionError.UNSUPPORTED, "option " + option + " is not supported");
      case OptionRequest.Invalid(int option, String reason) ->
          refuse(option, OptionError.INVALID, reason);
      case OptionRequest.TooBig(int option, long bytes) ->
          refuse(
              option,
              OptionError.TOO_BIG,
              "%d bytes of option data, at most %d are read"
                  .formatted(bytes, WireLimits.OPTION_BYTES_MAX));
    };
  }

  private Step exportName(OptionRequest.ExportName chosen) {
    int option = OptionType.EXPORT_NAME;
    if (replies == ReplyMode.EXTENDED) {
      return closing("EXPORT_NAME after EXTENDED_HEADERS");
    }
    Lookup lookup = catalog.choose(chosen.name());
    if (!(lookup instanceof Lookup.Found(ExportInfo export))) {
      Refusal refusal = refusalOf(option, lookup, chosen.name());
      return refuse(option, refusal.error(), refusal.text());
    }
    boolean padded = (clientFlags & FLAG_NO_ZEROES) == 0;
    return transmitting(
        export, List.of(new OptionReply.ExportChosen(export.bytes(), flagsOf(export), padded)));
  }

  private Step list() {
    List<OptionReply> answers = new ArrayList<>();
    for (ExportInfo export : catalog.list()) {
      answers.add(new OptionReply.Server(OptionType.LIST, export.name(), export.description()));
    }
    answers.add(new OptionReply.Ack(OptionType.LIST));
    return new Step(answers, NEGOTIATING);
  }

  private Step startTls() {
    int option = OptionType.STARTTLS;
    if (tls == TlsMode.OFF) {
      return refuse(option, OptionError.POLICY, "TLS is switched off");
    }
    if (encrypted) {
      return refuse(option, OptionError.INVALID, "TLS is in use already");
    }
    replies = ReplyMode.SIMPLE;
    forgetContexts();
    state = State.STARTING_TLS;
    return new Step(List.of(new OptionReply.Ack(option)), new StartingTls());
  }

  private Step structuredReplies() {
    int option = OptionType.STRUCTURED_REPLY;
    if (replies == ReplyMode.EXTENDED) {
      return refuse(
          option, OptionError.EXTENDED_HEADERS_REQUIRED, "extended headers were agreed on");
    }
    replies = ReplyMode.STRUCTURED;
    return answer(new OptionReply.Ack(option));
  }

  private Step details(OptionRequest.Details info) {
    int option = info.option();
    Lookup lookup = info.go() ? catalog.choose(info.name()) : catalog.find(info.name());
    if (!(lookup instanceof Lookup.Found(ExportInfo export))) {
      Refusal refusal = refusalOf(option, lookup, info.name());
      return refuse(option, refusal.error(), refusal.text());
    }
    Set<Integer> wanted = info.wanted();
    List<OptionReply> answers = new ArrayList<>();
    answers.add(new OptionReply.InfoExport(option, export.bytes(), flagsOf(export)));
    if (wanted.contains(InfoType.NAME)) {
      answers.add(new OptionReply.InfoName(option, export.name()));
    }
    if (wanted.contains(InfoType.DESCRIPTION) && !export.description().isEmpty()) {
      answers.add(new OptionReply.InfoDescription(option, export.description()));
    }
    if (wanted.contains(InfoType.BLOCK_SIZE)) {
      answers.add(new OptionReply.InfoBlockSize(option, export.blockSizes()));
    }
    answers.add(new OptionReply.Ack(option));
    return info.go() ? transmitting(export, answers) : new Step(answers, NEGOTIATING);
  }

  private Step metaContexts(OptionRequest.MetaContexts request) {
    int option = request.option();
    if (request.set() && !replies.chunks()) {
      return refuse(
          option, OptionError.INVALID, "neither structured replies nor extended headers agreed on");
    }
    for (String query : request.queries()) {
      if (query.indexOf(':') <= 0) {
        return refuse(
            option,
            OptionError.INVALID,
            "query " + WireStrings.quote(query) + " has no namespace, expected namespace:leaf");
      }
    }
    Lookup lookup = catalog.find(request.export());
    if (!(lookup instanceof Lookup.Found(ExportInfo export))) {
      Refusal refusal = refusalOf(option, lookup, request.export());
      return refuse(option, refusal.error(), refusal.text());
    }
    Set<String> queries = new HashSet<>(request.queries());
    return request.set() ? select(export, queries) : listContexts(export, queries);
  }

  private static Step listContexts(ExportInfo export, Set<String> queries) {
    int option = OptionType.LIST_META_CONTEXT;
    List<OptionReply> answers = new ArrayList<>();
    for (String context : export.metaContexts()) {
      boolean matches =
          queries.isEmpty()
              || queries.contains(context)
              || WILDCARDS.stream()
                  .anyMatch(wildcard -> context.startsWith(wildcard) && queries.contains(wildcard));
      if (matches) {
        answers.add(new OptionReply.MetaContext(option, 0, context));
      }
    }
    answers.add(new OptionReply.Ack(option));
    return new Step(answers, NEGOTIATING);
  }

  /** A wildcard selects nothing, because no context has its name. */
  private Step select(ExportInfo export, Set<String> queries) {
    int option = OptionType.SET_META_CONTEXT;
    List<String> names = export.metaContexts().stream().filter(queries::contains).toList();
    if (names.size() > WireLimits.CONTEXTS_MAX) {
      return refuse(
          option,
          OptionError.TOO_BIG,
          "%d metadata contexts, at most %d may be selected"
              .formatted(names.size(), WireLimits.CONTEXTS_MAX));
    }
    List<SelectedContext> selected = new ArrayList<>();
    List<OptionReply> answers = new ArrayList<>();
    for (String name : names) {
      lastContextId++;
      selected.add(new SelectedContext(lastContextId, name));
      answers.add(new OptionReply.MetaContext(option, lastContextId, name));
    }
    answers.add(new OptionReply.Ack(option));
    contextsExport = export.name();
    contexts = List.copyOf(selected);
    return new Step(answers, NEGOTIATING);
  }

  private void forgetContexts() {
    contextsExport = "";
    contexts = List.of();
  }

  /**
   * The contexts that count for {@code export}: all that were selected, or none when they were
   * selected for another one, or when that one has changed and lost one of them.
   */
  private List<SelectedContext> contextsOf(ExportInfo export) {
    boolean valid =
        contextsExport.equals(export.name())
            && contexts.stream()
                .allMatch(context -> export.metaContexts().contains(context.name()));
    return valid ? contexts : List.of();
  }

  private int flagsOf(ExportInfo export) {
    boolean filters = replies == ReplyMode.EXTENDED && !contextsOf(export).isEmpty();
    return export.transmissionFlags()
        | (replies.chunks() ? TransmissionFlags.SEND_DF : 0)
        | (filters ? TransmissionFlags.BLOCK_STATUS_PAYLOAD : 0);
  }

  private Refusal refusalOf(int option, Lookup lookup, String name) {
    return switch (lookup) {
      case Lookup.Found found -> throw new AssertionError("nothing to refuse: " + found);
      case Lookup.Unknown _ ->
          new Refusal(
              OptionError.UNKNOWN_EXPORT,
              name.isEmpty()
                  ? "there is no default export; name one"
                  : "no export is named " + WireStrings.quote(name));
      case Lookup.TlsRequired _ -> {
        // In this mode the protocol has TLS_REQUIRED as an answer to INFO and GO alone.
        boolean mayAsk =
            tls == TlsMode.OPTIONAL
                && !encrypted
                && (option == OptionType.INFO || option == OptionType.GO);
        yield new Refusal(
            mayAsk ? OptionError.TLS_REQUIRED : OptionError.POLICY,
            "export " + WireStrings.quote(name) + " is served over TLS only");
      }
      case Lookup.Refused(String reason) -> new Refusal(OptionError.POLICY, reason);
      case Lookup.ShuttingDown _ -> new Refusal(OptionError.SHUTDOWN, "the server shuts down");
    };
  }

  private Step transmitting(ExportInfo export, List<OptionReply> answers) {
    state = State.TRANSMITTING;
    return new Step(answers, new Transmitting(new Negotiated(export, replies, contextsOf(export))));
  }

  private static Step answer(OptionReply reply) {
    return new Step(List.of(reply), NEGOTIATING);
  }

  /** EXPORT_NAME has no way to say no. */
  private Step refuse(int option, OptionError error, String text) {
    return option == OptionType.EXPORT_NAME
        ? closing(text)
        : answer(new OptionReply.Refused(option, error, text));
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
