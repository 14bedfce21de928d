package io.qnbd.server;

import io.qnbd.server.control.ControlRequest;
import io.qnbd.server.control.ControlRequest.BitmapAction;
import java.io.IOException;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParentCommand;

/** {@code qnbd ctl SOCKET bitmap}. */
@Command(
    name = "bitmap",
    customSynopsis = "qnbd ctl SOCKET bitmap [-h] [--json] COMMAND",
    header = "List, add, remove and change dirty bitmaps of an export.",
    description = {
      "Works on the persistent dirty bitmaps of an export's image. Clients that connect afterwards"
          + " find them as qemu:dirty-bitmap:NAME."
    })
final class CtlBitmapCommand {
  @ParentCommand private @Nullable CtlCommand parent;

  @Command(
      name = "list",
      customSynopsis = "qnbd ctl SOCKET bitmap list [-h] [--json] EXPORT",
      header = "List the bitmaps.",
      description = "Lists the bitmaps.")
  int list(@Parameters(paramLabel = "EXPORT", description = "The export.") String export)
      throws IOException {
    return ask(new ControlRequest.ListBitmaps(export), CtlAnswer::bitmaps);
  }

  @Command(
      name = "add",
      customSynopsis = "qnbd ctl SOCKET bitmap add [-h] [--json] [OPTION...] EXPORT NAME",
      header = "Add a bitmap.",
      description = "Adds a bitmap in which nothing is dirty, and which records from now on.")
  int add(
      @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
      @Parameters(paramLabel = "NAME", description = "A name that no bitmap has.") String name,
      @Mixin BitmapCommand.Adding added)
      throws IOException {
    return ask(
        new ControlRequest.AddBitmap(
            export, name, added.granularityBytes(), added.enabled(), added.replaced()),
        _ -> Printable.text("added bitmap " + name));
  }

  @Command(
      name = "remove",
      customSynopsis = "qnbd ctl SOCKET bitmap remove [-h] [--json] EXPORT NAME",
      header = "Remove a bitmap.",
      description = "Removes a bitmap, also one that is inconsistent.")
  int remove(
      @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name)
      throws IOException {
    return change(export, BitmapAction.REMOVE, name, "removed bitmap " + name);
  }

  @Command(
      name = "enable",
      customSynopsis = "qnbd ctl SOCKET bitmap enable [-h] [--json] EXPORT NAME",
      header = "Let a bitmap record.",
      description = "From now on, changes of the disk are recorded in the bitmap.")
  int enable(
      @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name)
      throws IOException {
    return change(export, BitmapAction.ENABLE, name, "bitmap " + name + " is enabled");
  }

  @Command(
      name = "disable",
      customSynopsis = "qnbd ctl SOCKET bitmap disable [-h] [--json] EXPORT NAME",
      header = "Keep a bitmap as it is.",
      description = "From now on, changes of the disk are not recorded in the bitmap.")
  int disable(
      @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name)
      throws IOException {
    return change(export, BitmapAction.DISABLE, name, "bitmap " + name + " is disabled");
  }

  @Command(
      name = "clear",
      customSynopsis = "qnbd ctl SOCKET bitmap clear [-h] [--json] EXPORT NAME",
      header = "Make nothing dirty.",
      description = "Forgets all that the bitmap has recorded.")
  int clear(
      @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name)
      throws IOException {
    return change(export, BitmapAction.CLEAR, name, "cleared bitmap " + name);
  }

  @Command(
      name = "merge",
      customSynopsis = "qnbd ctl SOCKET bitmap merge [-h] [--json] EXPORT NAME SOURCE",
      header = "Add what another bitmap has.",
      description = "Makes dirty in NAME all that is dirty in SOURCE, of any granularity.")
  int merge(
      @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
      @Parameters(paramLabel = "NAME", description = "The bitmap that is changed.") String name,
      @Parameters(paramLabel = "SOURCE", description = "The bitmap that is read.") String source)
      throws IOException {
    return ask(
        new ControlRequest.MergeBitmap(export, name, source),
        _ -> Printable.text("merged bitmap %s into %s".formatted(source, name)));
  }

  private int change(String export, BitmapAction action, String name, String sentence)
      throws IOException {
    return ask(
        new ControlRequest.ChangeBitmap(export, action, name), _ -> Printable.text(sentence));
  }

  private int ask(ControlRequest request, CtlAnswer.Text text) throws IOException {
    return CtlCommand.parentOf(parent).ask(request, text);
  }
}
