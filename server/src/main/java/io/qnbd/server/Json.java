package io.qnbd.server;

import java.io.StringWriter;
import java.util.List;
import java.util.function.BiConsumer;
import tools.jackson.core.JsonGenerator;
import tools.jackson.core.ObjectWriteContext;
import tools.jackson.core.PrettyPrinter;
import tools.jackson.core.json.JsonFactory;
import tools.jackson.core.util.DefaultPrettyPrinter;
import tools.jackson.core.util.Separators;

/** JSON for people and programs: indented, one object or array for each answer. */
final class Json {
  private Json() {}

  /** Writes the members of the answer's object. */
  interface Members {
    void write(JsonGenerator json);
  }

  static String object(Members members) {
    return text(json -> {
      json.writeStartObject();
      members.write(json);
      json.writeEndObject();
    });
  }

  /** An array with one object for each element. */
  static <T> String array(List<T> elements, BiConsumer<JsonGenerator, T> members) {
    return text(json -> {
      json.writeStartArray();
      for (T element : elements) {
        json.writeStartObject();
        members.accept(json, element);
        json.writeEndObject();
      }
      json.writeEndArray();
    });
  }

  private static String text(Members value) {
    StringWriter text = new StringWriter();
    try (JsonGenerator json = new JsonFactory().createGenerator(new Indented(), text)) {
      value.write(json);
    }
    return text.toString();
  }

  /** Jackson asks its context how to lay the text out. */
  private static final class Indented extends ObjectWriteContext.Base {
    @Override
    public PrettyPrinter getPrettyPrinter() {
      return new DefaultPrettyPrinter(
          Separators.createDefaultInstance().withObjectNameValueSpacing(Separators.Spacing.AFTER));
    }

    @Override
    public boolean hasPrettyPrinter() {
      return true;
    }
  }
}
