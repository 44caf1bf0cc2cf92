// Charts: Vega-Lite, unpacked after the table has been painted, and drawn when a chart comes into sight.

let library = null;

/** The chart library; it puts `vega`, `vegaLite` and `vegaEmbed` into the window. */
function chartLibrary() {
  library ??= inflated(byId("chart-library")).then((bytes) => {
    document.head.append(element("script", {}, new TextDecoder().decode(bytes)));
    return { vega: window.vega, embed: window.vegaEmbed };
  });
  return library;
}

/** What all charts share: no frame, the page's letters and colours. */
function chartConfig() {
  const [ink, soft, line] = ["ink", "soft", "line"].map(colour);
  return {
    background: null, font: "system-ui, sans-serif", view: { stroke: null },
    axis: {
      labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12,
      titleFontSize: 12, titleFontWeight: "normal", gridDash: [2, 3], labelLimit: 260,
    },
    legend: { labelColor: soft, titleColor: soft, labelFontSize: 12, orient: "bottom", columns: innerWidth < 700 ? 2 : 5, labelLimit: 150, symbolLimit: 40 },
    text: { color: ink, fontSize: 12 }, rule: { color: soft },
    header: { labelColor: soft, titleColor: soft },
  };
}

/**
 * A chart in the element `id`. `draw(state)` returns { spec, values } or null where there is nothing to show; the chart is
 * drawn anew when its specification changes, and otherwise only gets the new values.
 */
class Chart {
  constructor(id, draw) {
    Object.assign(this, { host: byId(id), draw, state: null, view: null, drawn: "", seen: false, stale: false });
    this.place = this.host.closest("figure") ?? this.host;
    new IntersectionObserver(([entry]) => {
      this.seen = entry.isIntersecting;
      if (this.seen && this.stale) this.renew();
    }, { rootMargin: "300px" }).observe(this.host);
  }

  /** Show another state, at once where the chart is in sight. */
  show(state) {
    this.state = state;
    this.stale = true;
    this.place.hidden = false; // What is hidden never comes into sight.
    if (this.seen) this.renew();
  }

  async renew() {
    this.stale = false;
    const { vega, embed } = await chartLibrary();
    const made = this.draw(this.state, vega);
    this.place.hidden = !made;
    if (!made) return;
    const key = JSON.stringify([made.spec, isDark()]);
    if (this.view && key === this.drawn) {
      await this.view.change("table", vega.changeset().remove(() => true).insert(made.values)).runAsync();
      return;
    }
    this.drawn = key;
    const spec = {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", autosize: { type: "fit-x", contains: "padding" },
      ...made.spec, data: { name: "table", values: made.values },
    };
    const { view } = await embed(this.host, spec, {
      config: chartConfig(), logLevel: vega.Error, renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false },
    });
    this.view = view;
  }
}
