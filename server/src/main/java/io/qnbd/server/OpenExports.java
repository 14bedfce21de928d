package io.qnbd.server;

import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.protocol.WireLimits;
import io.qnbd.server.config.ExportPlan;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.control.ControlledExport;
import io.qnbd.server.control.ControlledExport.Origin;
import io.qnbd.server.control.ControlledServer;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.ExportSettings;
import io.qnbd.server.export.ServedExports;
import io.qnbd.server.net.NbdServer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import org.jspecify.annotations.Nullable;

/**
 * The images that are open and the exports over them.
 *
 * <pre>
 * absent --open--> open: locked, and found by clients
 * open --remove--> found by nobody; its clients are drained; closed
 *                  or, when a request is still in the image: flushed, and closed with the server
 * </pre>
 *
 * <p>Changes are made one at a time under {@code changes}. Whoever uses an image on behalf of an
 * operator holds its {@code use} lock shared; closing takes it exclusively. Lock order: {@code
 * changes}, {@code use}. Requests of clients take neither; the server waits for them.
 *
 * <p>Thread-safe.
 */
final class OpenExports {

  /** What the clients of an export that is removed get to take their last replies. */
  private static final Duration REMOVE_MAX = Duration.ofSeconds(5);

  /** What a change that is in progress gets to end; with the server's own time below 10 s. */
  private static final Duration CHANGE_END_MAX = Duration.ofSeconds(3);

  /** One image with its export. Changed under {@code changes} only. */
  private static final class Open {
    final Export export;
    final ImageFormat format;
    final Origin origin;
    final ReentrantReadWriteLock use = new ReentrantReadWriteLock();
    volatile ExportPlan plan;

    /** Guarded by {@code use}. */
    boolean closed;

    Open(Export export, ExportPlan plan, ImageFormat format, Origin origin) {
      this.export = export;
      this.plan = plan;
      this.format = format;
      this.origin = origin;
    }
  }

  /** What {@link #apply} did; see {@link io.qnbd.server.control.ReloadReport}. */
  record Changes(
      List<String> added,
      List<String> removed,
      List<String> reopened,
      List<String> changed,
      int unchanged,
      List<String> failed) {
    static Changes none() {
      return new Changes(
          new ArrayList<>(),
          new ArrayList<>(),
          new ArrayList<>(),
          new ArrayList<>(),
          0,
          new ArrayList<>());
    }

    Changes withUnchanged(int count) {
      return new Changes(added, removed, reopened, changed, count, failed);
    }
  }

  private final Terminal terminal;
  private final ServedExports served = ServedExports.of(List.of());
  private final ReentrantLock changes = new ReentrantLock();

  /** Replaced as a whole, so that readers need no lock. */
  private volatile List<Open> open = List.of();

  /** Removed, but a request was still in the image. Guarded by {@code changes}. */
  private final List<Open> lingering = new ArrayList<>();

  /** Once set, nothing is opened any more. */
  private volatile boolean closed;

  private volatile @Nullable NbdServer server;

  /**
   * @param terminal where the progress of slow steps is shown
   */
  OpenExports(Terminal terminal) {
    this.terminal = terminal;
  }

  /** What a server looks exports up in. */
  ServedExports served() {
    return served;
  }

  /** From now on, clients of what is removed are sent away by this server. */
  void servedBy(NbdServer by) {
    server = by;
  }

  List<ControlledExport> list() {
    Export chosen = served.export("").orElse(null);
    return open.stream().map(each -> controlled(each, each.export.equals(chosen))).toList();
  }

  private static ControlledExport controlled(Open each, boolean chosen) {
    return new ControlledExport(
        each.export,
        each.format.toString(),
        each.plan.path(),
        each.plan.temporary(),
        chosen,
        each.origin);
  }

  /** See {@link ControlledServer#use}. */
  <T> T use(String name, ControlledServer.Use<T> use) throws IOException {
    Open used = find(name);
    used.use.readLock().lock();
    try {
      if (used.closed) {
        throw new IOException("export '" + name + "' has just been removed");
      }
      return use.with(controlled(used, false));
    } finally {
      used.use.readLock().unlock();
    }
  }

  private Open find(String name) throws IOException {
    List<Open> now = open;
    for (Open each : now) {
      if (each.plan.name().equals(name)) {
        return each;
      }
    }
    if (name.isEmpty() && now.size() == 1) {
      return now.getFirst();
    }
    throw new IOException("no export is named '" + name + "'");
  }

  /** Opens the image, and makes it where asked to; clients find it when this returns. */
  ControlledExport open(ExportPlan plan, Origin origin) throws IOException {
    changes.lock();
    try {
      Open opened = add(plan, origin);
      return controlled(opened, served.export("").orElse(null) == opened.export);
    } finally {
      changes.unlock();
    }
  }

  /** Which export clients get that name none; null for none. */
  void chooseDefault(@Nullable String name) {
    served.chooseDefault(name);
  }

  private Open add(ExportPlan plan, Origin origin) throws IOException {
    requireRoom(plan.name());
    OpenOptions options = plan.openNow();
    ImageFormat format = ensureThere(plan, options.passphrase());
    DiskImage image;
    try (ProgressLine progress = new ProgressLine(terminal, plan.path())) {
      image =
          plan.temporary()
              ? DiskImages.openTemporary(plan.path(), options, temporaryDirectory(), progress)
              : DiskImages.open(plan.path(), options, progress);
    }
    boolean done = false;
    try {
      Export export =
          new Export(described(plan.settings(), format), image, plan.open().cacheMode());
      Open opened = new Open(export, plan, format, origin);
      served.add(export);
      open = with(opened);
      done = true;
      return opened;
    } finally {
      if (!done) {
        image.close();
      }
    }
  }

  private void requireRoom(String name) throws IOException {
    if (closed) {
      throw new IOException("the server is stopping");
    }
    if (open.size() >= WireLimits.EXPORTS_MAX) {
      throw new IOException("there are %d exports, which is the most".formatted(open.size()));
    }
    for (Open each : open) {
      if (each.plan.name().equals(name)) {
        throw new IOException(
            "an export named '%s' is served already (%s)".formatted(name, each.plan.path()));
      }
    }
  }

  private static ExportSettings described(ExportSettings settings, ImageFormat format) {
    return settings.description().isEmpty()
        ? settings.withDescription(format + " image")
        : settings;
  }

  /** Where the operator wants temporary files, or else where they may be large. */
  private static Path temporaryDirectory() {
    String named = System.getenv("TMPDIR");
    return Path.of(named == null || named.isEmpty() ? "/var/tmp" : named);
  }

  /** Makes the image if it is missing and the plan says so; returns the format that it has. */
  private static ImageFormat ensureThere(ExportPlan plan, @Nullable Passphrase passphrase)
      throws IOException {
    Path path = plan.path();
    ImageFormat format = plan.open().format();
    if (!Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      Long bytes = plan.createBytes();
      if (bytes == null) {
        throw new IOException(path + ": no such file (--create SIZE makes it)");
      }
      CreateOptions made =
          format == ImageFormat.RAW ? CreateOptions.raw(bytes) : CreateOptions.qcow2(bytes);
      DiskImages.create(path, made.withEncryption(encryption(passphrase)));
    }
    return DiskImages.inspect(path, plan.open().withReadOnly(true).withForceShare(true)).format();
  }

  private static CreateOptions.@Nullable Encryption encryption(@Nullable Passphrase passphrase) {
    return passphrase == null
        ? null
        : new CreateOptions.Encryption(passphrase, CreateOptions.ITER_MILLIS_DEFAULT);
  }

  /** Sends the export's clients away and closes its image. */
  void remove(String name) throws IOException {
    changes.lock();
    try {
      remove(find(name));
    } finally {
      changes.unlock();
    }
  }

  private void remove(Open removed) throws IOException {
    long start = System.nanoTime();
    served.remove(removed.export);
    open = without(removed);
    boolean quiet =
        clientsGone(removed)
            && closeUse(removed, REMOVE_MAX.toNanos() - (System.nanoTime() - start));
    DiskImage image = removed.export.image();
    try {
      if (quiet) {
        image.close();
        return;
      }
      image.flush();
    } catch (IOException e) {
      throw new IOException(
          "export '%s' is removed, but closing %s failed: %s"
              .formatted(removed.plan.name(), removed.plan.path(), Failures.sentence(e)),
          e);
    } finally {
      if (!quiet) {
        lingering.add(removed);
      }
    }
    throw new IOException(
        ("export '%s' is removed, but a request is still in progress after %d s:"
                + " %s stays open until the server stops")
            .formatted(removed.plan.name(), REMOVE_MAX.toSeconds(), removed.plan.path()));
  }

  private boolean clientsGone(Open removed) {
    NbdServer serving = server;
    removed.export.retire();
    try {
      return serving == null || serving.disconnectAll(removed.export, REMOVE_MAX);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /** Waits until no operator uses the image, and lets none begin. */
  private static boolean closeUse(Open removed, long nanos) {
    try {
      if (!removed.use.writeLock().tryLock(Math.max(0, nanos), TimeUnit.NANOSECONDS)) {
        return false;
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      return false;
    }
    removed.closed = true;
    removed.use.writeLock().unlock();
    return true;
  }

  private List<Open> with(Open added) {
    List<Open> now = new ArrayList<>(open);
    now.add(added);
    return List.copyOf(now);
  }

  private List<Open> without(Open removed) {
    return open.stream().filter(each -> each != removed).toList();
  }

  /**
   * Makes the exports of the configuration file what {@code wanted} says, one after another; those
   * of other origins are not touched. What cannot be opened leaves the others.
   *
   * @param chosen the default export's name, or null for none
   * @throws IOException when nothing can be done, and nothing was
   */
  Changes apply(List<ExportPlan> wanted, @Nullable String chosen) throws IOException {
    changes.lock();
    try {
      requireNoClash(wanted);
      Map<String, ExportPlan> plans = new LinkedHashMap<>();
      wanted.forEach(plan -> plans.put(plan.name(), plan));
      Changes done = Changes.none();
      int same = 0;
      List<ExportPlan> toOpen = new ArrayList<>(wanted);
      for (Open each : open) {
        if (each.origin != Origin.FILE) {
          continue;
        }
        ExportPlan plan = plans.get(each.plan.name());
        if (plan == null || !plan.opensLike(each.plan)) {
          (plan == null ? done.removed() : done.reopened()).add(each.plan.name());
          removeOrSay(each, done.failed());
          continue;
        }
        toOpen.remove(plan);
        ExportSettings settings = described(plan.settings(), each.format);
        if (settings.equals(each.export.settings())) {
          same++;
        } else {
          each.export.configure(settings);
          done.changed().add(plan.name());
        }
        each.plan = plan;
      }
      for (ExportPlan plan : toOpen) {
        openOrSay(plan, done);
      }
      served.chooseDefault(chosen);
      return done.withUnchanged(same);
    } finally {
      changes.unlock();
    }
  }

  private void requireNoClash(List<ExportPlan> wanted) throws IOException {
    if (closed) {
      throw new IOException("the server is stopping");
    }
    int others = 0;
    for (Open each : open) {
      if (each.origin == Origin.FILE) {
        continue;
      }
      others++;
      if (wanted.stream().anyMatch(plan -> plan.name().equals(each.plan.name()))) {
        throw new IOException(
            "the file has an export named '%s', and so has the %s (%s)"
                .formatted(
                    each.plan.name(),
                    each.origin == Origin.COMMAND_LINE ? "command line" : "control socket",
                    each.plan.path()));
      }
    }
    if (wanted.size() + others > WireLimits.EXPORTS_MAX) {
      throw new IOException(
          "with the file's there were %d exports, the most is %d"
              .formatted(wanted.size() + others, WireLimits.EXPORTS_MAX));
    }
  }

  private void removeOrSay(Open removed, List<String> failed) {
    try {
      remove(removed);
    } catch (IOException | RuntimeException e) {
      failed.add(Failures.sentence(e));
    }
  }

  private void openOrSay(ExportPlan plan, Changes done) {
    try {
      Open _ = add(plan, Origin.FILE);
      if (!done.reopened().contains(plan.name())) {
        done.added().add(plan.name());
      }
    } catch (IOException | RuntimeException e) {
      done.reopened().remove(plan.name());
      done.failed().add("export '%s': %s".formatted(plan.name(), Failures.sentence(e)));
    }
  }

  /**
   * Closes all images, or only flushes them, at the end. Closes the rest also when one fails. What
   * is asked of them later is refused; their counters can still be read.
   *
   * @param quiet whether no request is in an image any more
   * @return a sentence for each thing that failed
   */
  List<String> close(boolean quiet) {
    List<String> failures = new ArrayList<>();
    boolean alone = awaitChanges();
    try {
      closed = true;
      List<Open> all = new ArrayList<>(open);
      all.addAll(lingering);
      for (Open each : all) {
        try {
          if (quiet && alone && closeUse(each, 0)) {
            each.export.image().close();
          } else {
            each.export.image().flush();
          }
        } catch (IOException | RuntimeException e) {
          failures.add("closing " + each.plan.path() + ": " + Failures.sentence(e));
        }
      }
    } finally {
      if (alone) {
        changes.unlock();
      }
    }
    return failures;
  }

  private boolean awaitChanges() {
    try {
      return changes.tryLock(CHANGE_END_MAX.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /** What the ready line says of each export. */
  List<ReadyLine.Item> items() {
    List<Open> now = open;
    return now.stream().map(each -> item(each, now.size() == 1)).toList();
  }

  private static ReadyLine.Item item(Open each, boolean only) {
    ExportPlan plan = each.plan;
    DiskImage image = each.export.image();
    String name = only ? plan.path().toString() : plan.name();
    return new ReadyLine.Item(
        name.isEmpty() ? "the default" : name,
        Sizes.text(image.virtualBytes())
            + ", "
            + each.format
            + (plan.open().snapshot() == null ? "" : ", snapshot " + plan.open().snapshot())
            + (plan.temporary() ? ", temporary" : "")
            + (image.readOnly() ? ", read-only" : ""));
  }
}
