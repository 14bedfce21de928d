package io.qnbd.it.conformance;

import java.io.IOException;

/** Options whose lengths lie: refused, consumed, and the next option understood. */
final class OptionLieCases {
  private static final String ROW = "6.3";
  private static final String QUERY = Nbd.ALLOCATION;

  private OptionLieCases() {}

  static void addTo(CaseList list) {
    for (int option : new int[] {Nbd.OPT_INFO, Nbd.OPT_GO}) {
      detailsLies(list, option);
    }
    for (int option : new int[] {Nbd.OPT_LIST_META_CONTEXT, Nbd.OPT_SET_META_CONTEXT}) {
      contextLies(list, option);
    }
    refuses(list, Nbd.OPT_LIST, "data where none belongs", new byte[4]);
    list.add(
        ROW,
        "STARTTLS with data: refused and still in clear",
        bench ->
            bench
                .tlsOptional()
                .haggle(haggling -> {
                  var _ = haggling.ask(Nbd.OPT_STARTTLS, new byte[4]).mustEndWith(Nbd.ERR_INVALID);
                }));
    list.add(
        ROW,
        "an option of 4 GiB that never comes: refused or closed",
        bench -> bench.deadlines().mustHaveEnded(Deadlines.ENDLESS_OPTION));
  }

  private static void refuses(CaseList list, int option, String lie, byte... data) {
    String title = "%s, %s: INVALID and in step".formatted(Nbd.option(option), lie);
    list.add(
        ROW,
        title,
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  mustRefuse(haggling, option, data);
                  var _ = haggling.info("pattern").mustAcknowledge();
                }));
  }

  private static void mustRefuse(Haggling haggling, int option, byte... data) throws IOException {
    if (option == Nbd.OPT_LIST_META_CONTEXT || option == Nbd.OPT_SET_META_CONTEXT) {
      var _ = haggling.agree(Mode.STRUCTURED);
    }
    var _ = haggling.ask(option, data).mustEndWith(Nbd.ERR_INVALID);
  }

  private static void detailsLies(CaseList list, int option) {
    byte[] whole = Haggling.details("pattern", 0, 3);
    refuses(list, option, "no data");
    refuses(list, option, "3 bytes of data", new byte[3]);
    refuses(list, option, "no count behind the name", new Bytes().string("pattern").array());
    refuses(list, option, "half a count", new Bytes().string("pattern").raw((byte) 0).array());
    refuses(
        list,
        option,
        "a name longer than the data",
        new Bytes().u32(8).text("pattern").u16(0).array());
    refuses(
        list, option, "a name of 4 GiB - 1", new Bytes().u32(-1).text("pattern").u16(0).array());
    refuses(
        list,
        option,
        "a name of 2 GiB",
        new Bytes().u32(0x80000000L).text("pattern").u16(0).array());
    refuses(
        list,
        option,
        "more requests than there are",
        new Bytes().string("pattern").u16(3).u16(0).u16(1).array());
    refuses(list, option, "65535 requests in none", new Bytes().string("pattern").u16(-1).array());
    refuses(list, option, "a byte too many", new Bytes().raw(whole).raw((byte) 0).array());
    refuses(list, option, "a request too many", new Bytes().raw(whole).u16(1).array());
  }

  private static void contextLies(CaseList list, int option) {
    byte[] whole = Haggling.queries("pattern", QUERY);
    refuses(list, option, "no data");
    refuses(list, option, "3 bytes of data", new byte[3]);
    refuses(list, option, "no count behind the name", new Bytes().string("pattern").array());
    refuses(
        list,
        option,
        "a name longer than the data",
        new Bytes().u32(20).text("pattern").u32(0).array());
    refuses(
        list, option, "a name of 4 GiB - 1", new Bytes().u32(-1).text("pattern").u32(0).array());
    refuses(
        list,
        option,
        "a query longer than the data",
        new Bytes().string("pattern").u32(1).u32(QUERY.length() + 1).text(QUERY).array());
    refuses(
        list,
        option,
        "a query of 4 GiB - 1",
        new Bytes().string("pattern").u32(1).u32(-1).text(QUERY).array());
    refuses(
        list,
        option,
        "two queries counted, one there",
        new Bytes().string("pattern").u32(2).string(QUERY).array());
    refuses(
        list,
        option,
        "2^31 queries counted, one there",
        new Bytes().string("pattern").u32(0x80000000L).string(QUERY).array());
    refuses(
        list, option, "half a query length", new Bytes().string("pattern").u32(1).u16(0).array());
    String trailing = "trailing bytes";
    list.add(
        "8",
        "%s, %s: INVALID and in step".formatted(Nbd.option(option), trailing),
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  byte[] longer = new Bytes().raw(whole).u32(0).u32(0).array();
                  mustRefuse(haggling, option, longer);
                  mustRefuse(haggling, option, new Bytes().raw(whole).raw((byte) 1).array());
                  var _ = haggling.ask(option, whole).mustAcknowledge();
                }));
  }
}
