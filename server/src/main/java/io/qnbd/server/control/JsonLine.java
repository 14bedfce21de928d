package io.qnbd.server.control;

import java.io.StringWriter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import tools.jackson.core.JacksonException;
import tools.jackson.core.JsonGenerator;
import tools.jackson.core.JsonParser;
import tools.jackson.core.JsonToken;
import tools.jackson.core.ObjectReadContext;
import tools.jackson.core.ObjectWriteContext;
import tools.jackson.core.json.JsonFactory;

/** One JSON object on one line, as both ends of the control socket write and read it. */
public final class JsonLine {
  private JsonLine() {}

  private static final JsonFactory FACTORY = new JsonFactory();

  /** Writes the members of the line's object. */
  public interface Members {
    void write(JsonGenerator json);
  }

  /** The object as a line, without its end. */
  public static String of(Members members) {
    StringWriter text = new StringWriter();
    try (JsonGenerator json = FACTORY.createGenerator(ObjectWriteContext.empty(), text)) {
      json.writeStartObject();
      members.write(json);
      json.writeEndObject();
    }
    return text.toString();
  }

  /** Writes a member: a string, a long, a boolean, or a list of strings. */
  static void write(JsonGenerator json, String name, Object value) {
    switch (value) {
      case String text -> json.writeStringProperty(name, text);
      case Long number -> json.writeNumberProperty(name, number);
      case Boolean flag -> json.writeBooleanProperty(name, flag);
      case List<?> texts -> {
        json.writeArrayPropertyStart(name);
        texts.forEach(text -> json.writeString(text.toString()));
        json.writeEndArray();
      }
      default -> throw new AssertionError("no value of a request: " + value);
    }
  }

  /**
   * Reads an object: its members as strings, longs, doubles, booleans, lists and maps, in order.
   *
   * @param line UTF-8
   * @throws MalformedJsonException when it is anything else, or holds a member twice or a null
   */
  public static Map<String, Object> parse(byte[] line) throws MalformedJsonException {
    try (JsonParser parser = FACTORY.createParser(ObjectReadContext.empty(), line)) {
      if (parser.nextToken() != JsonToken.START_OBJECT) {
        throw new MalformedJsonException("a line holds one JSON object");
      }
      Map<String, Object> members = object(parser);
      if (parser.nextToken() != null) {
        throw new MalformedJsonException("a line holds one JSON object and nothing after it");
      }
      return members;
    } catch (JacksonException e) {
      throw new MalformedJsonException("not JSON: " + e.getOriginalMessage());
    }
  }

  private static Map<String, Object> object(JsonParser parser) throws MalformedJsonException {
    Map<String, Object> members = new LinkedHashMap<>();
    while (parser.nextToken() != JsonToken.END_OBJECT) {
      String name = parser.currentName();
      parser.nextToken();
      if (members.put(name, value(parser)) != null) {
        throw new MalformedJsonException("the member '" + name + "' is there twice");
      }
    }
    return members;
  }

  private static Object value(JsonParser parser) throws MalformedJsonException {
    return switch (parser.currentToken()) {
      case START_OBJECT -> object(parser);
      case START_ARRAY -> {
        List<Object> elements = new ArrayList<>();
        while (parser.nextToken() != JsonToken.END_ARRAY) {
          elements.add(value(parser));
        }
        yield elements;
      }
      case VALUE_STRING -> parser.getString();
      case VALUE_NUMBER_INT -> parser.getLongValue();
      case VALUE_NUMBER_FLOAT -> parser.getDoubleValue();
      case VALUE_TRUE -> true;
      case VALUE_FALSE -> false;
      default -> throw new MalformedJsonException("null has no meaning here: leave the member out");
    };
  }
}
