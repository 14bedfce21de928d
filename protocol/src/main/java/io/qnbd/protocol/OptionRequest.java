package io.qnbd.protocol;

import java.util.List;
import java.util.Set;

/** An option of the handshake, parsed. */
public sealed interface OptionRequest {

  /** The option's number on the wire, which every answer to it repeats. */
  int option();

  record ExportName(String name) implements OptionRequest {
    @Override
    public int option() {
      return OptionType.EXPORT_NAME;
    }
  }

  record Abort() implements OptionRequest {
    @Override
    public int option() {
      return OptionType.ABORT;
    }
  }

  record ListExports() implements OptionRequest {
    @Override
    public int option() {
      return OptionType.LIST;
    }
  }

  /**
   * INFO or GO.
   *
   * @param go whether transmission begins after success
   * @param name the export's name; empty for the default one
   * @param wanted the kinds of information asked for, unknown ones included
   */
  record Details(boolean go, String name, Set<Integer> wanted) implements OptionRequest {
    public Details {
      wanted = Set.copyOf(wanted);
    }

    @Override
    public int option() {
      return go ? OptionType.GO : OptionType.INFO;
    }
  }

  record StartTls() implements OptionRequest {
    @Override
    public int option() {
      return OptionType.STARTTLS;
    }
  }

  record ExtendedHeaders() implements OptionRequest {
    @Override
    public int option() {
      return OptionType.EXTENDED_HEADERS;
    }
  }

  /**
   * LIST_META_CONTEXT or SET_META_CONTEXT.
   *
   * @param set whether the contexts found are selected
   * @param export the export's name; empty for the default one
   * @param queries as sent: legal strings, and nothing more is known of them
   */
  record MetaContexts(boolean set, String export, List<String> queries) implements OptionRequest {
    public MetaContexts {
      queries = List.copyOf(queries);
    }

    @Override
    public int option() {
      return set ? OptionType.SET_META_CONTEXT : OptionType.LIST_META_CONTEXT;
    }
  }

  record StructuredReplies() implements OptionRequest {
    @Override
    public int option() {
      return OptionType.STRUCTURED_REPLY;
    }
  }

  /** An option that this server does not know; its data was skipped. */
  record Unknown(int option) implements OptionRequest {}

  /**
   * A known option whose data breaks the protocol; it was skipped.
   *
   * @param reason what is wrong, for the client's log
   */
  record Invalid(int option, String reason) implements OptionRequest {}

  /** A known option with more data than is looked at; it was skipped. */
  record TooBig(int option, long bytes) implements OptionRequest {}
}
