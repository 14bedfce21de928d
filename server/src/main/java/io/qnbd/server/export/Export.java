package io.qnbd.server.export;

import io.qnbd.image.CacheMode;
import io.qnbd.image.DiskImage;
import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.TransmissionFlags;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * An image under a name.
 *
 * <p>All connections share one image, whose commit covers the changes of all of them, so clients
 * may use several connections at once (CAN_MULTI_CONN). Whoever opened the image closes it, after
 * the server has shut down.
 *
 * <p>Thread-safe.
 */
public final class Export {
  /** Below a page nothing gets cheaper. */
  private static final int PREFERRED_BYTES_MIN = 4096;

  /** The largest cluster of a qcow2 image. */
  private static final int PREFERRED_BYTES_MAX = 2 << 20;

  private final DiskImage image;
  private final CacheMode mode;
  private final Fence fence = new Fence();
  private final RequestCounters requests = new RequestCounters();
  private final Seats seats = new Seats();
  private final WritePace writePace = new WritePace();
  private final RateGate rates;
  private volatile ExportSettings settings;

  /** Of {@code settings}, in the form in which they are compared. */
  private volatile Set<String> subjects;

  /**
   * @throws IllegalArgumentException when the protocol cannot carry the name or the description
   */
  public Export(String name, String description, DiskImage image, CacheMode mode) {
    this(ExportSettings.of(name, description), image, mode);
  }

  /**
   * @throws IllegalArgumentException when the protocol cannot carry the name or the description
   */
  public Export(ExportSettings settings, DiskImage image, CacheMode mode) {
    this.image = image;
    this.mode = mode;
    this.settings = settings;
    this.rates = new RateGate(settings.rates());
    this.subjects = ClientIdentity.normal(settings.allowedSubjects());
    ExportInfo _ = infoWith(settings);
  }

  /** What clients are told at this moment: the size follows a resize, the contexts the bitmaps. */
  public ExportInfo info() {
    return infoWith(settings);
  }

  /** What the operator says of it at this moment. */
  public ExportSettings settings() {
    return settings;
  }

  /**
   * Changes the settings: clients that are connected stay, and those that come find the new ones.
   *
   * @throws IllegalArgumentException when the name is another, or the protocol cannot carry the
   *     description
   */
  public void configure(ExportSettings changed) {
    if (!changed.name().equals(settings.name())) {
      throw new IllegalArgumentException(
          "export " + WireStrings.quote(settings.name()) + " cannot get another name");
    }
    ExportInfo _ = infoWith(changed);
    settings = changed;
    rates.limit(changed.rates());
    subjects = ClientIdentity.normal(changed.allowedSubjects());
  }

  /** Whether only clients with TLS may know of it; those who must prove a name need TLS for it. */
  public boolean requiresTls() {
    ExportSettings now = settings;
    return now.tlsRequired() || !now.allowedSubjects().isEmpty();
  }

  /**
   * Whether a client may use the export.
   *
   * @param identity the name that it has proven, or null
   */
  public boolean admits(@Nullable String identity) {
    Set<String> now = subjects;
    return now.isEmpty() || ClientIdentity.isAmong(now, identity);
  }

  /** Counts the connections against the settings' limits. */
  public Seats seats() {
    return seats;
  }

  /** Holds the requests to the settings' rates. */
  public RateGate rates() {
    return rates;
  }

  /** No connection may begin any more; the image is about to be closed. */
  public void retire() {
    seats.close();
  }

  public boolean retired() {
    return seats.closed();
  }

  /** The metadata context of that name, if the export offers it at this moment. */
  public Optional<StatusContext> statusContext(String name) {
    return StatusContext.offeredBy(image).stream()
        .filter(context -> context.name().equals(name))
        .findFirst();
  }

  private ExportInfo infoWith(ExportSettings said) {
    return new ExportInfo(
        said.name(),
        said.description(),
        image.virtualBytes(),
        flagsOf(image),
        blockSizesOf(image),
        StatusContext.offeredBy(image).stream().map(StatusContext::name).toList());
  }

  public DiskImage image() {
    return image;
  }

  public CacheMode mode() {
    return mode;
  }

  /** Holds newcomers off while requests of a dead connection are still in the image. */
  public Fence fence() {
    return fence;
  }

  /** Says whether event loops may write. */
  public WritePace writePace() {
    return writePace;
  }

  /** Counts what clients ask for. */
  public RequestCounters requests() {
    return requests;
  }

  private static int flagsOf(DiskImage image) {
    return TransmissionFlags.HAS_FLAGS
        | TransmissionFlags.SEND_FLUSH
        | TransmissionFlags.SEND_FUA
        | TransmissionFlags.SEND_TRIM
        | TransmissionFlags.SEND_WRITE_ZEROES
        | TransmissionFlags.SEND_FAST_ZERO
        | TransmissionFlags.SEND_CACHE
        | TransmissionFlags.CAN_MULTI_CONN
        | (image.readOnly() ? TransmissionFlags.READ_ONLY : 0);
  }

  private static BlockSizes blockSizesOf(DiskImage image) {
    int preferred = Math.clamp(image.preferredBytes(), PREFERRED_BYTES_MIN, PREFERRED_BYTES_MAX);
    return new BlockSizes(1, preferred, WireLimits.PAYLOAD_BYTES_MAX);
  }
}
