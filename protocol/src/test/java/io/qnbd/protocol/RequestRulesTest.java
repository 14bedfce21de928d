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

  private static final ExportInfo WITH_CONTEXTS =
      new ExportInfo("disk", "", BYTES, OFFERED, SIZES, List.of("base:allocation", "qemu:x"));

  private static RequestRules selecting(ReplyMode replies, SelectedContext... contexts) {
    return new RequestRules(new Negotiated(WITH_CONTEXTS, replies, List.of(contexts)));
  }

  private static final SelectedContext ALLOCATION = new SelectedContext(4, "base:allocation");
  private static final SelectedContext OTHER = new SelectedContext(5, "qemu:x");
  private static final RequestRules STATUS = selecting(ReplyMode.EXTENDED, ALLOCATION, OTHER);

  @Test
  void statusNeedsASelectedContext() {
    Request status = new Request.BlockStatus(0, 1, 0, 512);
    assertEquals(NbdError.EINVAL, errorOf(RULES, status));
    assertEquals(NbdError.EINVAL, errorOf(selecting(ReplyMode.STRUCTURED), status));
    assertEquals(NbdError.EINVAL, errorOf(selecting(ReplyMode.EXTENDED), status));
    assertNull(selecting(ReplyMode.STRUCTURED, OTHER).refusalOf(status));
    assertNull(STATUS.refusalOf(status));
  }

  @Test
  void statusTakesReqOneAndFuaOnly() {
    assertNull(STATUS.refusalOf(new Request.BlockStatus(CommandFlags.REQ_ONE, 1, 0, 512)));
    assertNull(STATUS.refusalOf(new Request.BlockStatus(CommandFlags.FUA, 1, 0, 512)));
    for (int flag : new int[] {2, 4, 16, 32, 64, 0x8000}) {
      assertEquals(NbdError.EINVAL, errorOf(STATUS, new Request.BlockStatus(flag, 1, 0, 512)));
    }
  }

  @Test
  void statusOfNothingOrPastTheEndIsInvalid() {
    assertEquals(NbdError.EINVAL, errorOf(STATUS, new Request.BlockStatus(0, 1, 0, 0)));
    assertEquals(NbdError.EINVAL, errorOf(STATUS, new Request.BlockStatus(0, 1, BYTES, 1)));
    assertEquals(NbdError.EINVAL, errorOf(STATUS, new Request.BlockStatus(0, 1, 0, BYTES + 1)));
    assertEquals(NbdError.EINVAL, errorOf(STATUS, new Request.BlockStatus(0, 1, 1, -1)));
    assertNull(STATUS.refusalOf(new Request.BlockStatus(0, 1, 0, BYTES)));
  }

  @Test
  void statusPayloadNamesSelectedContextsOnceEach() {
    assertNull(STATUS.refusalOf(new Request.BlockStatus(0, 1, 0, 512, List.of(5))));
    assertNull(STATUS.refusalOf(new Request.BlockStatus(0, 1, 0, 512, List.of(5, 4))));
    for (List<Integer> bad :
        List.of(List.<Integer>of(), List.of(6), List.of(0), List.of(4, 4), List.of(4, 5, 4))) {
      Request status = new Request.BlockStatus(0, 1, 0, 512, bad);
      assertEquals(NbdError.EINVAL, errorOf(STATUS, status), bad.toString());
    }
  }

  @Test
  void statusIsGivenInTheContextsThatAreWanted() {
    Negotiated negotiated = STATUS.negotiated();
    assertEquals(
        List.of(ALLOCATION, OTHER), negotiated.contextsOf(new Request.BlockStatus(0, 1, 0, 512)));
    assertEquals(
        List.of(OTHER), negotiated.contextsOf(new Request.BlockStatus(0, 1, 0, 512, List.of(5))));
  }

  @Test
  void fastZeroIsInvalidUnlessOffered() {
    RequestRules fast = rules(OFFERED | TransmissionFlags.SEND_FAST_ZERO, ReplyMode.SIMPLE);
    Request zeroes = new Request.WriteZeroes(CommandFlags.FAST_ZERO, 1, 0, 512);
    assertNull(fast.refusalOf(zeroes));
    assertEquals(NbdError.EINVAL, errorOf(RULES, zeroes));
    int all = CommandFlags.FAST_ZERO | CommandFlags.NO_HOLE | CommandFlags.FUA;
    assertNull(fast.refusalOf(new Request.WriteZeroes(all, 1, 0, BYTES)));
    assertEquals(NbdError.EINVAL, errorOf(fast, new Request.Write(16, 1, 0, 512)));
    assertEquals(NbdError.EINVAL, errorOf(fast, new Request.Trim(16, 1, 0, 512)));
  }

  @Test
  void flagsThatNobodyKnowsAreInvalidOnEveryCommand() {
    for (int flag = 1 << 5; flag < 1 << 16; flag <<= 1) {
      for (RequestRules rules : List.of(RULES, STRUCTURED, STATUS)) {
        assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Read(flag, 1, 0, 1)));
        assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Write(flag, 1, 0, 1)));
        assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Flush(flag, 1, 0, 0)));
        assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Trim(flag, 1, 0, 1)));
        assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Cache(flag, 1, 0, 1)));
        assertEquals(NbdError.EINVAL, errorOf(rules, new Request.WriteZeroes(flag, 1, 0, 1)));
      }
    }
  }

  @Test
  void whatWasNotOfferedIsInvalid() {
    RequestRules bare = rules(0, ReplyMode.SIMPLE);
    assertEquals(NbdError.EINVAL, errorOf(bare, new Request.Trim(0, 1, 0, 1)));
    assertEquals(NbdError.EINVAL, errorOf(bare, new Request.WriteZeroes(0, 1, 0, 1)));
    assertEquals(NbdError.EINVAL, errorOf(bare, new Request.Flush(0, 1, 0, 0)));
    assertEquals(NbdError.EINVAL, errorOf(bare, new Request.Write(CommandFlags.FUA, 1, 0, 1)));
    assertNull(bare.refusalOf(new Request.Write(0, 1, 0, 1)));
    assertNull(bare.refusalOf(new Request.Cache(0, 1, 0, 1)), "some clients send it anyway");
  }

  @Test
  void readOnlyRefusesWritersWithEpermWhetherOfferedOrNot() {
    RequestRules bare = rules(TransmissionFlags.READ_ONLY, ReplyMode.EXTENDED);
    assertEquals(NbdError.EPERM, errorOf(bare, new Request.Trim(0, 1, 0, 1)));
    assertEquals(NbdError.EPERM, errorOf(bare, new Request.WriteZeroes(0, 1, 0, 1)));
    assertEquals(NbdError.EPERM, errorOf(bare, new Request.Write(0, 1, 0, 1)));
    assertNull(bare.refusalOf(new Request.Read(0, 1, 0, 1)));
  }

  @Test
  void lengthsOf64BitsAreServedWhereNoDataCrosses() {
    RequestRules extended = rules(OFFERED, ReplyMode.EXTENDED);
    assertNull(extended.refusalOf(new Request.Trim(0, 1, 0, BYTES)));
    assertNull(extended.refusalOf(new Request.WriteZeroes(0, 1, 0, BYTES)));
    assertNull(extended.refusalOf(new Request.Cache(0, 1, 0, BYTES)));
    assertEquals(NbdError.EOVERFLOW, errorOf(extended, new Request.Read(0, 1, 0, BYTES)));
    assertEquals(NbdError.EINVAL, errorOf(extended, new Request.Trim(0, 1, 0, BYTES + 1)));
    assertEquals(NbdError.ENOSPC, errorOf(extended, new Request.WriteZeroes(0, 1, 1, BYTES)));
    for (long bytes : new long[] {-1, Long.MIN_VALUE, Long.MAX_VALUE, -512}) {
      assertEquals(NbdError.EINVAL, errorOf(extended, new Request.Read(0, 1, 512, bytes)));
      assertEquals(NbdError.EINVAL, errorOf(extended, new Request.Trim(0, 1, 512, bytes)));
      assertEquals(NbdError.EINVAL, errorOf(extended, new Request.Cache(0, 1, 512, bytes)));
      assertEquals(NbdError.ENOSPC, errorOf(extended, new Request.WriteZeroes(0, 1, 512, bytes)));
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {11, 12, 13, 14})
  void agreesWithUnboundedArithmeticIn64Bits(long seed) {
    Random random = new Random(seed);
    long[] corners = {0, 1, BYTES, Long.MAX_VALUE, Long.MIN_VALUE, -1, -BYTES};
    for (int i = 0; i < 10_000; i++) {
      long offset = corners[random.nextInt(corners.length)] + random.nextInt(5) - 2;
      long bytes = corners[random.nextInt(corners.length)] + random.nextInt(5) - 2;
      BigInteger end =
          new BigInteger(Long.toUnsignedString(offset))
              .add(new BigInteger(Long.toUnsignedString(bytes)));
      assertEquals(
          end.compareTo(BigInteger.valueOf(BYTES)) <= 0,
          RULES.refusalOf(new Request.Trim(0, 1, offset, bytes)) == null,
          "seed " + seed + ", step " + i + ": " + offset + " " + bytes);
    }
  }

  @Test
  void zeroLengthsAreLegalUpToTheVeryEnd() {
    for (RequestRules rules : List.of(RULES, STRUCTURED, STATUS)) {
      for (long offset : new long[] {0, BYTES}) {
        assertNull(rules.refusalOf(new Request.Read(0, 1, offset, 0)));
        assertNull(rules.refusalOf(new Request.Write(0, 1, offset, 0)));
        assertNull(rules.refusalOf(new Request.Trim(0, 1, offset, 0)));
        assertNull(rules.refusalOf(new Request.Cache(0, 1, offset, 0)));
        assertNull(rules.refusalOf(new Request.WriteZeroes(0, 1, offset, 0)));
      }
      assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Read(0, 1, BYTES + 1, 0)));
      assertEquals(NbdError.ENOSPC, errorOf(rules, new Request.Write(0, 1, BYTES + 1, 0)));
    }
  }

  @Test
  void whatIsNotAlignedToTheMinimumBlockIsInvalid() {
    ExportInfo export =
        new ExportInfo("disk", "", BYTES, OFFERED, new BlockSizes(4096, 4096, 8192));
    RequestRules rules = new RequestRules(new Negotiated(export, ReplyMode.SIMPLE, List.of()));
    assertNull(rules.refusalOf(new Request.Read(0, 1, 4096, 8192)));
    assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Read(0, 1, 1, 4096)));
    assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Write(0, 1, 0, 512)));
    assertEquals(NbdError.EINVAL, errorOf(rules, new Request.Trim(0, 1, 512, 4096)));
    assertEquals(NbdError.ENOSPC, errorOf(rules, new Request.Write(0, 1, BYTES, 1)), "first");
  }

  @Test
  void malformedAndUnknownRequestsAreInvalid() {
    Request malformed = new Request.Malformed(3, 32, 1, 0, 5, 5, "a flush with a payload");
    RequestRules.Refusal refusal = STATUS.refusalOf(malformed);
    assertEquals(new RequestRules.Refusal(NbdError.EINVAL, "a flush with a payload"), refusal);
    assertEquals(NbdError.EINVAL, errorOf(STATUS, new Request.Unknown(8, 0, 1, 0, 0)));
    assertNull(STATUS.refusalOf(new Request.Disconnect(0xffff, 1, -1, -1)));
  }
}
