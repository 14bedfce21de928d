package io.qnbd.server;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.UnsupportedImageException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Copies the persistent dirty bitmaps of one disk to another that gets the same contents.
 *
 * <p>{@link #begin} refuses what can't be before any data is copied, and leaves nothing behind.
 * {@link #finish} adds them. Each records from its first moment, in a disk that has changed: so it
 * can't be believed until it has its bits, or, if it is to go on recording, until the disk is
 * closed. A copy that was killed leaves no bitmap that says that nothing has changed.
 */
final class BitmapCopy implements AutoCloseable {
  private final Terminal terminal;
  private final String source;
  private final String target;
  private final boolean skipBroken;

  private List<BitmapInfo> copied = List.of();
  private final List<String> added = new ArrayList<>();
  private @Nullable Bitmaps unfinished;

  /**
   * Nothing is done yet.
   *
   * @param source the source's name for messages; likewise {@code target}
   * @param skipBroken whether bitmaps that can't be believed are left out with a warning
   */
  BitmapCopy(Terminal terminal, String source, String target, boolean skipBroken) {
    this.terminal = terminal;
    this.source = source;
    this.target = target;
    this.skipBroken = skipBroken;
  }

  void begin(DiskImage from, DiskImage to) throws IOException {
    copied = believed(from);
    if (copied.isEmpty()) {
      return;
    }
    if (from.virtualBytes() != to.virtualBytes()) {
      throw new IOException(
          "%s has %d bytes and %s %d: bitmaps are copied to a disk of the same size only"
              .formatted(source, from.virtualBytes(), target, to.virtualBytes()));
    }
    Bitmaps bitmaps = to.bitmaps();
    requireNamesFree(bitmaps);
    requireAddable(bitmaps);
    unfinished = bitmaps;
  }

  private void requireNamesFree(Bitmaps bitmaps) throws IOException {
    Set<String> names = bitmaps.list().stream().map(BitmapInfo::name).collect(Collectors.toSet());
    for (BitmapInfo info : copied) {
      if (names.contains(info.name())) {
        throw new IOException(
            "%s: there is a bitmap named %s already".formatted(target, info.name()));
      }
    }
  }

  /** Adds one of each granularity, under a name that nobody takes for a copy, and removes it. */
  private void requireAddable(Bitmaps bitmaps) throws IOException {
    String name = ".qnbd-convert-" + ProcessHandle.current().pid();
    for (long bytes : copied.stream().map(BitmapInfo::granularityBytes).distinct().toList()) {
      bitmaps.add(name, bytes, false);
      bitmaps.remove(name);
    }
  }

  private List<BitmapInfo> believed(DiskImage from) throws IOException {
    Bitmaps bitmaps = bitmapsOf(from);
    try {
      bitmaps.requireAllListed();
    } catch (CorruptImageException e) {
      if (!skipBroken) {
        throw new IOException(e.getMessage() + ": copy without them with --skip-broken-bitmaps", e);
      }
      warn(String.valueOf(e.getMessage()));
    }
    List<BitmapInfo> believed = new ArrayList<>();
    for (BitmapInfo info : bitmaps.list()) {
      if (info.consistent()) {
        believed.add(info);
      } else if (skipBroken) {
        warn("%s: bitmap %s can't be believed and is left out".formatted(source, info.name()));
      } else {
        throw new IOException(
            ("%s: bitmap %s can't be believed: leave it out with --skip-broken-bitmaps, or remove"
                    + " it with 'qnbd bitmap remove'")
                .formatted(source, info.name()));
      }
    }
    return believed;
  }

  private Bitmaps bitmapsOf(DiskImage from) throws IOException {
    try {
      return from.bitmaps();
    } catch (UnsupportedImageException e) {
      throw new IOException(source + ": has no persistent bitmaps to copy: not qcow2", e);
    }
  }

  private void warn(String sentence) {
    terminal.err().println("qnbd: warning: " + Printable.text(sentence));
  }

  void finish(DiskImage from) throws IOException {
    Bitmaps bitmaps = unfinished;
    if (bitmaps == null) {
      return;
    }
    for (BitmapInfo info : copied) {
      bitmaps.add(info.name(), info.granularityBytes(), true);
      added.add(info.name());
      bitmaps.merge(info.name(), from, info.name());
      if (!info.enabled()) {
        bitmaps.disable(info.name());
      }
    }
    unfinished = null;
  }

  /** Part of what was asked for is nothing: removes what was added if not all could be. */
  @Override
  public void close() throws IOException {
    Bitmaps bitmaps = unfinished;
    unfinished = null;
    if (bitmaps == null) {
      return;
    }
    IOException failed = null;
    for (String name : added) {
      try {
        bitmaps.remove(name);
      } catch (IOException e) {
        if (failed == null) {
          failed = e;
        } else {
          failed.addSuppressed(e);
        }
      }
    }
    if (failed != null) {
      throw failed;
    }
  }
}
