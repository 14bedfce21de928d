package io.qnbd.protocol;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.math.BigInteger;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class RequestRulesTest {
  private static final long BYTES = 1L << 40;
  private static final BlockSizes SIZES = new BlockSizes(1, 4096, 64 << 20);
  private static final int OFFERED =
      TransmissionFlags.SEND_FLUSH
          | TransmissionFlags.SEND_FUA
          | TransmissionFlags.SEND_TRIM
          | TransmissionFlags.SEND_WRITE_ZEROES;
  private static final RequestRules RULES = rules(OFFERED, ReplyMode.SIMPLE);
  private static final RequestRules STRUCTURED = rules(OFFERED, ReplyMode.STRUCTURED);
  private static final RequestRules READ_ONLY =
      rules(OFFERED | TransmissionFlags.READ_ONLY, ReplyMode.SIMPLE);

  private static RequestRules rules(int flags, ReplyMode replies) {
    ExportInfo export = new ExportInfo("disk", "", BYTES, flags, SIZES);
    return new RequestRules(new Negotiated(export, replies, List.of()));
  }

  private static NbdError errorOf(RequestRules rules, Request request) {
    RequestRules.Refusal refusal = rules.refusalOf(request);
    assertNotNull(refusal, request.toString());
    return refusal.error();
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8})
  void agreesWithUnboundedArithmetic(long seed) {
    Random random = new Random(seed);
    long[] corners = {0, 1, BYTES - 1, BYTES, BYTES + 1, Long.MAX_VALUE, Long.MIN_VALUE, -1, -512};
    for (int i = 0; i < 10_000; i++) {
      long offset = corners[random.nextInt(corners.length)] + random.nextInt(5) - 2;
      long bytes = random.nextInt(4) == 0 ? 0xffff_ffffL : random.nextInt(5);
      BigInteger unsignedOffset = new BigInteger(Long.toUnsignedString(offset));
      boolean inside =
          unsignedOffset.add(BigInteger.valueOf(bytes)).compareTo(BigInteger.valueOf(BYTES)) <= 0;
      Request request = new Request.Trim(0, 1, offset, bytes);
      assertEquals(
          inside,
          RULES.refusalOf(request) == null,
          "seed " + seed + ", step " + i + ": " + request);
    }
  }

  @Test
  void errorPastTheEndDependsOnTheCommand() {
    assertEquals(NbdError.EINVAL, errorOf(RULES, new Request.Read(0, 1, BYTES, 1)));
    assertEquals(NbdError.EINVAL, errorOf(RULES, new Request.Trim(0, 1, BYTES, 1)));
    assertEquals(NbdError.EINVAL, errorOf(RULES, new Request.Cache(0, 1, BYTES, 1)));
    assertEquals(NbdError.ENOSPC, errorOf(RULES, new Request.Write(0, 1, BYTES, 1)));
    assertEquals(NbdError.ENOSPC, errorOf(RULES, new Request.WriteZeroes(0, 1, BYTES, 1)));
  }

  @Test
  void readOnlyComesBeforeRangeAndAfterFlags() {
    assertEquals(NbdError.EPERM, errorOf(READ_ONLY, new Request.Write(0, 1, BYTES, 1)));
    assertEquals(NbdError.EPERM, errorOf(READ_ONLY, new Request.Trim(0, 1, 0, 1)));
    assertEquals(NbdError.EINVAL, errorOf(READ_ONLY, new Request.Write(2, 1, 0, 1)));
    assertNull(READ_ONLY.refusalOf(new Request.Flush(0, 1, 0, 0)));
    assertNull(READ_ONLY.refusalOf(new Request.Cache(0, 1, 0, 1)));
  }

  @Test
  void fuaIsLegalOnEveryCommand() {
    int fua = CommandFlags.FUA;
    assertNull(RULES.refusalOf(new Request.Read(fua, 1, 0, 1)));
    assertNull(RULES.refusalOf(new Request.Write(fua, 1, 0, 1)));
    assertNull(RULES.refusalOf(new Request.WriteZeroes(fua, 1, 0, 1)));
    assertNull(RULES.refusalOf(new Request.Trim(fua, 1, 0, 1)));
    assertNull(RULES.refusalOf(new Request.Cache(fua, 1, 0, 1)));
    assertNull(RULES.refusalOf(new Request.Flush(fua, 1, 7, 7)));
  }

  @Test
  void flagsBelongToTheirCommands() {
    assertEquals(NbdError.EINVAL, errorOf(RULES, new Request.Read(CommandFlags.DF, 1, 0, 1)));
    assertNull(STRUCTURED.refusalOf(new Request.Read(CommandFlags.DF, 1, 0, 1)));
    assertNull(RULES.refusalOf(new Request.WriteZeroes(CommandFlags.NO_HOLE, 1, 0, 1)));
    assertEquals(NbdError.EINVAL, errorOf(RULES, new Request.Trim(CommandFlags.NO_HOLE, 1, 0, 1)));
    assertEquals(
        NbdError.EINVAL, errorOf(RULES, new Request.WriteZeroes(CommandFlags.FAST_ZERO, 1, 0, 1)));
    assertEquals(NbdError.EINVAL, errorOf(RULES, new Request.Unknown(7, 0, 1, 0, 1)));
  }

  @Test
  void onlyReadsAreBoundByThePayloadLimit() {
    long bytes = (64L << 20) + 1;
    assertNull(RULES.refusalOf(new Request.Read(0, 1, 0, bytes - 1)));
    assertEquals(NbdError.EINVAL, errorOf(RULES, new Request.Read(0, 1, 0, bytes)));
    assertEquals(NbdError.EOVERFLOW, errorOf(STRUCTURED, new Request.Read(0, 1, 0, bytes)));
    assertNull(RULES.refusalOf(new Request.Trim(0, 1, 0, 0xffff_ffffL)));
    assertNull(RULES.refusalOf(new Request.WriteZeroes(0, 1, 0, 0xffff_ffffL)));
  }
}
