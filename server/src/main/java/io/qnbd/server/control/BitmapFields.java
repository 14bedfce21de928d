package io.qnbd.server.control;

import io.qnbd.image.BitmapInfo;
import java.util.Map;
import tools.jackson.core.JsonGenerator;

/** A dirty bitmap as JSON. */
public final class BitmapFields {
  private BitmapFields() {}

  /** Writes the bitmap as an object. */
  public static void write(JsonGenerator json, BitmapInfo bitmap) {
    json.writeStartObject();
    json.writeStringProperty("name", bitmap.name());
    json.writeNumberProperty("granularity", bitmap.granularityBytes());
    json.writeBooleanProperty("enabled", bitmap.enabled());
    json.writeBooleanProperty("consistent", bitmap.consistent());
    json.writeEndObject();
  }

  /**
   * Reads what {@link #write} wrote.
   *
   * @throws MalformedJsonException when a field is missing or of another kind
   */
  public static BitmapInfo read(Map<?, ?> fields) throws MalformedJsonException {
    if (fields.get("name") instanceof String name
        && fields.get("granularity") instanceof Long granularity
        && fields.get("enabled") instanceof Boolean enabled
        && fields.get("consistent") instanceof Boolean consistent) {
      return new BitmapInfo(name, granularity, enabled, consistent);
    }
    throw new MalformedJsonException("a bitmap has not the fields that it should have");
  }
}
