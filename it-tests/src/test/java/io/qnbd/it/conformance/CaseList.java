package io.qnbd.it.conformance;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** The cases in the order in which they run. Every name is there once. */
final class CaseList {
  private final List<Case> cases = new ArrayList<>();
  private final Set<String> names = new HashSet<>();

  /** What a case does with the servers; it throws when one of them breaks a rule. */
  interface Body {
    void run(Bench bench) throws Exception;
  }

  /** What a case does in each reply mode. */
  interface ModeBody {
    void run(Bench bench, Mode mode) throws Exception;
  }

  /**
   * @param row the section of the list of cases, such as 6.14
   * @param title the situation and the right answer
   * @param mode the reply mode, empty where it makes no difference
   */
  record Case(String row, String title, String mode, Body body) {
    String name() {
      String tail = mode.isEmpty() ? "" : " [" + mode + "]";
      return row + " " + title + tail;
    }
  }

  /** Every case there is. */
  static CaseList all() {
    CaseList list = new CaseList();
    GreetingCases.addTo(list);
    OptionCases.addTo(list);
    OptionLieCases.addTo(list);
    ContextCases.addTo(list);
    FlagCases.addTo(list);
    CommandCases.addTo(list);
    RangeCases.addTo(list);
    ReadCases.addTo(list);
    StatusCases.addTo(list);
    SizeCases.addTo(list);
    ExtendedCases.addTo(list);
    TlsCases.addTo(list);
    SelectiveTlsCases.addTo(list);
    PipelineCases.addTo(list);
    SurvivalCases.addTo(list);
    ShutdownCases.addTo(list);
    DeadlineCases.addTo(list);
    return list;
  }

  List<Case> cases() {
    return List.copyOf(cases);
  }

  /** A case for which the reply mode makes no difference. */
  void add(String row, String title, Body body) {
    add(new Case(row, title, "", body));
  }

  /** A case in each of the modes. */
  void in(Mode[] modes, String row, String title, ModeBody body) {
    for (Mode mode : modes) {
      add(new Case(row, title, mode.toString(), bench -> body.run(bench, mode)));
    }
  }

  /** A case in all three modes. */
  void each(String row, String title, ModeBody body) {
    in(Mode.values(), row, title, body);
  }

  /** A case in the modes with chunks. */
  void chunked(String row, String title, ModeBody body) {
    in(Mode.CHUNKED, row, title, body);
  }

  private void add(Case each) {
    Check.that(names.add(each.name()), "two cases are named %s", each.name());
    cases.add(each);
  }
}
