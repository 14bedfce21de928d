package io.qnbd.server.control;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.charset.StandardCharsets;
import java.util.List;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

final class ControlRequestTest {
  static List<ControlRequest> requests() {
    return List.of(
        new ControlRequest.Exports(),
        new ControlRequest.Stats(null),
        new ControlRequest.Stats(""),
        new ControlRequest.ListSnapshots("a"),
        new ControlRequest.CreateSnapshot("a", "line\nbreak"),
        new ControlRequest.DeleteSnapshot("", "ü"),
        new ControlRequest.RenameSnapshot("a", "b", "c"),
        new ControlRequest.ListBitmaps("a"),
        new ControlRequest.AddBitmap("a", "b", 0, true, null),
        new ControlRequest.AddBitmap("a", "b", 512, false, null),
        new ControlRequest.AddBitmap("a", "b", 65536, true, "c"),
        new ControlRequest.ChangeBitmap("a", ControlRequest.BitmapAction.REMOVE, "b"),
        new ControlRequest.ChangeBitmap("a", ControlRequest.BitmapAction.ENABLE, "b"),
        new ControlRequest.ChangeBitmap("a", ControlRequest.BitmapAction.DISABLE, "b"),
        new ControlRequest.ChangeBitmap("a", ControlRequest.BitmapAction.CLEAR, "b"),
        new ControlRequest.MergeBitmap("a", "b", "c"));
  }

  @ParameterizedTest
  @MethodSource("requests")
  void isReadAsItWasWrittenOnOneLine(ControlRequest request) throws MalformedJsonException {
    String line = request.line();
    assertEquals(1, line.lines().count(), line);
    assertEquals(request, ControlRequest.parse(line.getBytes(StandardCharsets.UTF_8)));
  }
}
