/* run_plot.c - plots as SVG inside HTML: bars with intervals, curves, heat
 * maps. Draws what it is given; colours are classes of the page's style. */
#include <math.h>
#include <stdlib.h>

#include "job/run_page_i.h"

#define WIDTH   340 /* of a plot, pixels: one column of a telephone */
#define LETTER  7.2 /* pixels, of the widest of usual fonts */
#define COLORS  8   /* of the palette */
#define GAP     6
#define BAR_ROW 23

void page_text(base_str *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        const char *entity = *c == '<'   ? "&lt;"
                             : *c == '>' ? "&gt;"
                             : *c == '&' ? "&amp;"
                             : *c == '"' ? "&quot;"
                                         : NULL;
        bool control = (unsigned char)*c < 0x20 && *c != '\n' && *c != '\t';
        if (entity || control)
            base_str_puts(out, entity ? entity : "?");
        else
            base_str_add(out, c, 1);
    }
}

/* ---- text in plots --------------------------------------------------------
 */

static int letters(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* At most `most` letters; the rest becomes an ellipsis. */
static void add_short(base_str *out, const char *text, int most)
{
    if (letters(text) <= most) {
        page_text(out, text);
        return;
    }
    const char *end = text;
    for (int n = 0; *end; end++)
        if (((unsigned char)*end & 0xc0) != 0x80 && ++n == most)
            break;
    char *head = base_strndup(text, (size_t)(end - text));
    page_text(out, head ? head : "");
    base_str_puts(out, "\xe2\x80\xa6");
    free(head);
}

static void add_label(base_str *out, double x, double y, const char *class,
                      const char *text, int most)
{
    base_str_printf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y,
                    class);
    add_short(out, text, most);
    base_str_puts(out, "</text>");
}

static void begin(const char *title, double width, double height, base_str *out)
{
    base_str_puts(out, "<figure><figcaption>");
    page_text(out, title);
    base_str_printf(out,
                    "</figcaption>\n<svg role=\"img\" width=\"%.0f\" "
                    "height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" aria-label=\"",
                    width, height, width, height);
    page_text(out, title);
    base_str_puts(out, "\">\n");
}

static void end(base_str *out)
{
    base_str_puts(out, "</svg></figure>\n");
}

int64_t plot_color(int64_t color)
{
    return color > 0 ? (color - 1) % COLORS + 1 : 0;
}

static void add_rule(base_str *out, double x1, double y1, double x2, double y2)
{
    base_str_printf(out,
                    "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                    "y2=\"%.1f\"/>",
                    x1, y1, x2, y2);
}

/* ---- scales ----------------------------------------------------------------
 */

/* 1, 2 or 5 times a power of ten, the smallest that is not below x. */
static double round_up(double x)
{
    double power = pow(10, floor(log10(x)));
    static const double steps[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++)
        if (x <= steps[i] * power * (1 + 1e-9))
            return steps[i] * power;
    return 10 * power;
}

/* ---- bars ------------------------------------------------------------------
 */

static void value_text(page_value v, base_str *out)
{
    if (v.is_share)
        base_str_printf(out, "%.1f", 100 * v.value);
    else
        base_str_printf(out, "%.3g", v.value);
}

static void add_tooltip(const plot_bar *b, base_str *out)
{
    base_str_puts(out, "<title>");
    page_text(out, b->label);
    base_str_puts(out, ": ");
    value_text(b->value, out);
    if (b->value.is_share)
        base_str_printf(out, " %% (95 %% interval %.1f to %.1f)",
                        100 * b->value.low, 100 * b->value.high);
    base_str_puts(out, "</title>");
}

typedef struct bar_scale {
    double left, width; /* of the area, pixels */
    double most;        /* value at its right end */
} bar_scale;

static double bar_x(const bar_scale *s, double value)
{
    return s->left + s->width * fmin(fmax(value / s->most, 0), 1);
}

static void add_bar(const plot_bar *b, const bar_scale *s, double y, int most,
                    base_str *out)
{
    page_value v = b->value;
    double middle = y + BAR_ROW / 2.0, end_x = bar_x(s, v.value);
    base_str_puts(out, "<g>");
    add_tooltip(b, out);
    add_label(out, s->left - GAP, middle + 4, "end", b->label, most);
    base_str_printf(out,
                    "<rect class=\"bar c%lld%s\" x=\"%.1f\" y=\"%.1f\" "
                    "width=\"%.1f\" height=\"13\" rx=\"2\"/>",
                    (long long)plot_color(b->color), b->faint ? " faint" : "",
                    s->left, middle - 6.5, end_x - s->left);
    if (v.is_share) {
        double low = bar_x(s, v.low), high = bar_x(s, v.high);
        base_str_printf(out,
                        "<path class=\"whisker\" d=\"M%.1f %.1fH%.1fM%.1f "
                        "%.1fv6M%.1f %.1fv6\"/>",
                        low, middle, high, low, middle - 3, high, middle - 3);
    }
    base_str_printf(out, "<text class=\"end\" x=\"%d\" y=\"%.1f\">", WIDTH - 2,
                    middle + 4);
    value_text(v, out);
    base_str_puts(out, "</text></g>\n");
}

static void add_bar_grid(const bar_scale *s, bool share, double bottom,
                         base_str *out)
{
    for (int i = 0; i <= 4; i++) {
        double value = s->most * i / 4, x = bar_x(s, value);
        add_rule(out, x, 0, x, bottom);
        base_str_printf(out,
                        "<text class=\"tick mid\" x=\"%.1f\" y=\"%.1f\">"
                        "%.3g%s</text>",
                        x, bottom + 13, share ? 100 * value : value,
                        share && i == 4 ? " %" : "");
    }
    base_str_puts(out, "\n");
}

void plot_bars(const char *title, const plot_bar *bars, int64_t n,
               base_str *out)
{
    int longest = 4;
    double most = 0;
    bool share = true;
    for (int64_t i = 0; i < n; i++) {
        int length = letters(bars[i].label);
        longest = length > longest ? length : longest;
        share &= bars[i].value.is_share;
        most = fmax(most, bars[i].value.value);
    }
    longest = longest > 20 ? 20 : longest;
    bar_scale s = {.left = longest * LETTER + GAP,
                   .most = share      ? 1
                           : most > 0 ? round_up(most)
                                      : 1};
    s.width = WIDTH - s.left - 44;
    double bottom = (double)n * BAR_ROW + 2;
    begin(title, WIDTH, bottom + 18, out);
    add_bar_grid(&s, share, bottom, out);
    for (int64_t i = 0; i < n; i++)
        add_bar(&bars[i], &s, (double)i * BAR_ROW, longest, out);
    end(out);
}

/* ---- curves ----------------------------------------------------------------
 */

#define PLOT_HEIGHT 190
#define PLOT_LEFT   40
#define PLOT_BOTTOM 160
#define PLOT_TOP    8
#define MOST_POINTS 400 /* of a curve; more are averaged */

typedef struct axes {
    double x_most, low, high;
    bool logarithmic;
} axes;

static double at_x(const axes *a, double step)
{
    return PLOT_LEFT + (WIDTH - PLOT_LEFT - 10) * step / a->x_most;
}

static double at_y(const axes *a, double loss)
{
    double part = a->logarithmic ? log(loss / a->low) / log(a->high / a->low)
                                 : (loss - a->low) / (a->high - a->low);
    return PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * part;
}

static axes axes_of(const plot_line *lines, int64_t n)
{
    axes a = {.x_most = 1, .low = HUGE_VAL, .high = -HUGE_VAL};
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < lines[i].curve->n; k++) {
            double loss = lines[i].curve->loss[k];
            a.x_most = fmax(a.x_most, lines[i].curve->step[k]);
            a.low = isfinite(loss) ? fmin(a.low, loss) : a.low;
            a.high = isfinite(loss) ? fmax(a.high, loss) : a.high;
        }
    a.logarithmic = a.low > 0 && a.high / a.low > 8;
    if (!a.logarithmic) {
        double room = fmax((a.high - a.low) * 0.05, 1e-6);
        a.high += room;
        a.low = a.low >= 0 ? fmax(a.low - room, 0) : a.low - room;
    }
    return a;
}

static void add_y_tick(const axes *a, double loss, base_str *out)
{
    double y = at_y(a, loss);
    if (y < PLOT_TOP - 1 || y > PLOT_BOTTOM + 1)
        return;
    add_rule(out, PLOT_LEFT, y, WIDTH - 10, y);
    base_str_printf(out,
                    "<text class=\"tick end\" x=\"%d\" y=\"%.1f\">%.3g</text>",
                    PLOT_LEFT - 5, y + 4, loss);
}

/* 1, 2 and 5 times the powers of ten. */
static void add_log_ticks(const axes *a, base_str *out)
{
    int last = (int)floor(log10(a->high));
    for (int power = (int)floor(log10(a->low)); power <= last; power++) {
        add_y_tick(a, pow(10, power), out);
        add_y_tick(a, 2 * pow(10, power), out);
        add_y_tick(a, 5 * pow(10, power), out);
    }
}

static void add_axes(const axes *a, base_str *out)
{
    double step = round_up((a->high - a->low) / 5);
    if (a->logarithmic)
        add_log_ticks(a, out);
    for (int i = 0; i <= 6 && !a->logarithmic; i++)
        add_y_tick(a, (ceil(a->low / step) + i) * step, out);
    step = fmax(round_up(a->x_most / 5), 1);
    for (int i = 0; i * step <= a->x_most; i++)
        base_str_printf(out,
                        "<text class=\"tick mid\" x=\"%.1f\" y=\"%d\">%.6g"
                        "</text>",
                        at_x(a, i * step), PLOT_BOTTOM + 14, i * step);
    base_str_printf(out,
                    "<text class=\"tick end\" x=\"%d\" y=\"%d\">step</text>\n",
                    WIDTH - 8, PLOT_BOTTOM + 28);
}

static void add_points(const axes *a, const plot_line *line, base_str *out)
{
    const page_curve *c = line->curve;
    int64_t bundle = (c->n + MOST_POINTS - 1) / MOST_POINTS;
    char pen = 'M';
    for (int64_t i = 0; i < c->n; i += bundle) {
        int64_t n = c->n - i < bundle ? c->n - i : bundle;
        double loss = 0;
        for (int64_t k = 0; k < n; k++)
            loss += c->loss[i + k] / (double)n;
        if (isfinite(loss))
            base_str_printf(out, "%c%.1f %.1f", pen,
                            at_x(a, c->step[i + n - 1]), at_y(a, loss));
        pen = isfinite(loss) ? 'L' : 'M';
    }
}

static void add_line(const axes *a, const plot_line *line, base_str *out)
{
    const page_curve *c = line->curve;
    int64_t color = plot_color(line->color);
    if (c->n == 0)
        return;
    base_str_puts(out, "<g><title>");
    page_text(out, line->label);
    base_str_printf(out, ": %.4f at step %.0f, %.4f at step %.0f</title>",
                    c->loss[0], c->step[0], c->loss[c->n - 1],
                    c->step[c->n - 1]);
    base_str_printf(out, "<path class=\"line c%lld%s\" d=\"", (long long)color,
                    line->points ? " dashed" : "");
    add_points(a, line, out);
    base_str_puts(out, "\"/>");
    for (int64_t i = 0; i < c->n && line->points && c->n <= 40; i++)
        if (isfinite(c->loss[i]))
            base_str_printf(out,
                            "<circle class=\"bar c%lld\" cx=\"%.1f\" "
                            "cy=\"%.1f\" r=\"2.6\"/>",
                            (long long)color, at_x(a, c->step[i]),
                            at_y(a, c->loss[i]));
    base_str_puts(out, "</g>\n");
}

void plot_lines(const char *title, const plot_line *lines, int64_t n,
                base_str *out)
{
    axes a = axes_of(lines, n);
    begin(title, WIDTH, PLOT_HEIGHT, out);
    if (a.low <= a.high)
        add_axes(&a, out);
    for (int64_t i = 0; i < n && a.low <= a.high; i++)
        add_line(&a, &lines[i], out);
    end(out);
}

/* ---- heat maps --------------------------------------------------------------
 */

static int longest_of(const char *const *names, int64_t n, int most)
{
    int longest = 1;
    for (int64_t i = 0; i < n; i++) {
        int length = letters(names[i]);
        longest = length > longest ? length : longest;
    }
    return longest < most ? longest : most;
}

static void add_cell(const plot_heat *h, int64_t row, int64_t col, double x,
                     double y, double width, double height, base_str *out)
{
    double value = h->cells[row * h->n_cols + col];
    bool framed = h->framed && h->framed[row * h->n_cols + col];
    if (isnan(value))
        return;
    double part = h->most > 0 ? fmin(fabs(value) / h->most, 1) : 0;
    char number[32];
    snprintf(number, sizeof number, "%.1f", value);
    if (!strcmp(number, "-0.0"))
        value = 0;
    base_str_puts(out, "<g><title>");
    page_text(out, h->rows[row]);
    base_str_puts(out, ", ");
    page_text(out, h->cols[col]);
    base_str_printf(out, ": %s%.1f %s</title>",
                    h->is_signed && value > 0 ? "+" : "", value, h->unit);
    base_str_printf(out,
                    "<rect class=\"cell %s%s\" x=\"%.1f\" y=\"%.1f\" "
                    "width=\"%.1f\" height=\"%.1f\" fill-opacity=\"%.3f\"/>",
                    value < 0 ? "down" : "up", framed ? " framed" : "", x + 1,
                    y + 1, width - 2, height - 2, 0.04 + 0.96 * part);
    if (height >= 16)
        base_str_printf(out,
                        "<text class=\"mid%s\" x=\"%.1f\" y=\"%.1f\">"
                        "%s%.1f</text>",
                        part > 0.7 ? " on" : "", x + width / 2,
                        y + height / 2 + 4,
                        h->is_signed && value > 0 ? "+" : "", value);
    base_str_puts(out, "</g>\n");
}

void plot_heat_map(const char *title, const plot_heat *h, base_str *out)
{
    int row_letters = longest_of(h->rows, h->n_rows, 16);
    int col_letters = longest_of(h->cols, h->n_cols, 12);
    double left = row_letters * LETTER + GAP, top = 18;
    double width = fmax(col_letters * LETTER + 8, 42);
    double height = h->n_rows > 16 ? 10 : 24;
    double right = left + (double)h->n_cols * width;
    begin(title, right + 2, top + (double)h->n_rows * height + 4, out);
    for (int64_t c = 0; c < h->n_cols; c++)
        add_label(out, left + ((double)c + 0.5) * width, 12, "tick mid",
                  h->cols[c], col_letters);
    for (int64_t r = 0; r < h->n_rows; r++) {
        double y = top + (double)r * height;
        if (height >= 16 || r % 4 == 0)
            add_label(out, left - GAP, y + height / 2 + 4, "tick end",
                      h->rows[r], row_letters);
        for (int64_t c = 0; c < h->n_cols; c++)
            add_cell(h, r, c, left + (double)c * width, y, width, height, out);
    }
    end(out);
}
