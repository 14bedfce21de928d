package io.qnbd.server.control;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.server.control.ControlRequest.AddBitmap;
import io.qnbd.server.control.ControlRequest.ChangeBitmap;
import java.io.IOException;
import java.util.List;

/** Does what is asked of the dirty bitmaps of an image that is served. */
final class BitmapCommands {
  private BitmapCommands() {}

  static String list(Bitmaps bitmaps) {
    List<BitmapInfo> list = bitmaps.list();
    return JsonLine.of(json -> {
      json.writeArrayPropertyStart("bitmaps");
      list.forEach(bitmap -> BitmapFields.write(json, bitmap));
      json.writeEndArray();
    });
  }

  static void add(Bitmaps bitmaps, AddBitmap request) throws IOException {
    if (request.replaced() != null) {
      bitmaps.replace(request.replaced(), request.name(), request.granularityBytes());
    } else {
      bitmaps.add(request.name(), request.granularityBytes(), request.enabled());
    }
  }

  static void change(Bitmaps bitmaps, ChangeBitmap request) throws IOException {
    switch (request.action()) {
      case REMOVE -> bitmaps.remove(request.name());
      case ENABLE -> bitmaps.enable(request.name());
      case DISABLE -> bitmaps.disable(request.name());
      case CLEAR -> bitmaps.clear(request.name());
    }
  }
}
